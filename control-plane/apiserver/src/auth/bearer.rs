//! `Authorization: Bearer TOKEN`.

use http::{HeaderMap, header::AUTHORIZATION};
use hull_api::{ApiError, status::Reason};

use super::{
    JwtIssuers, UserInfo, bootstrap_token,
    tokens::{Accepted, ISSUER, TokenError, Tokens},
};

/// What tokens are checked with: bootstrap tokens, those of other issuers, and the cluster's own.
#[derive(Clone, Copy)]
pub(crate) struct Credentials<'a> {
    pub tokens: &'a Tokens,
    pub issuers: &'a JwtIssuers,
}

impl Credentials<'_> {
    /// Checks a token; it must be for one of `audiences`. Only service accounts have tokens for
    /// others than the API itself.
    pub(crate) async fn check(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Accepted, TokenError> {
        if audiences.iter().any(|audience| audience == ISSUER)
            && let Some(user) = self.foreign_user(token).await?
        {
            return Ok(Accepted {
                user,
                audiences: vec![ISSUER.to_string()],
            });
        }
        self.tokens.check(token, audiences).await
    }

    /// `None`: it is no token of somebody else.
    async fn foreign_user(&self, token: &str) -> Result<Option<UserInfo>, TokenError> {
        if bootstrap_token::is_one(token) {
            let user = bootstrap_token::user(self.tokens.storage(), token).await?;
            return user.map(Some).ok_or(TokenError::Invalid);
        }
        match self.issuers.user(token).await {
            None => Ok(None),
            Some(Ok(user)) => Ok(Some(user)),
            Some(Err(why)) => {
                tracing::debug!(why, "token of an issuer refused");
                Err(TokenError::Invalid)
            }
        }
    }
}

/// The user that a bearer token stands for; `None`: there is none.
pub(crate) async fn bearer_user(
    credentials: Credentials<'_>,
    headers: &HeaderMap,
) -> Result<Option<UserInfo>, ApiError> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let unauthorized = || ApiError::new(Reason::Unauthorized, "Unauthorized");
    let text = value.to_str().map_err(|_| unauthorized())?;
    let Some((scheme, token)) = text.split_once(' ') else {
        return Ok(None);
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    match credentials.check(token.trim(), &[ISSUER.to_string()]).await {
        Ok(accepted) => Ok(Some(accepted.user)),
        Err(TokenError::Store(error)) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "bearer token refused");
            Err(unauthorized())
        }
    }
}
