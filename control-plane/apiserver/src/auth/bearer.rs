//! `Authorization: Bearer TOKEN`.

use http::{HeaderMap, header::AUTHORIZATION};
use hull_api::{ApiError, status::Reason};

use super::{
    UserInfo, bootstrap_token,
    tokens::{ISSUER, TokenError, Tokens},
};

/// The user that a bearer token stands for; `None`: there is none.
pub(crate) async fn bearer_user(
    tokens: &Tokens,
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
    let token = token.trim();
    if bootstrap_token::is_one(token) {
        let user = bootstrap_token::user(tokens.storage(), token).await?;
        return user.map(Some).ok_or_else(unauthorized);
    }
    match tokens.check(token, &[ISSUER.to_string()]).await {
        Ok(accepted) => Ok(Some(accepted.user)),
        Err(TokenError::Store(error)) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "bearer token refused");
            Err(unauthorized())
        }
    }
}
