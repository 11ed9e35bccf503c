//! Users of other issuers: JSON web tokens of OpenID Connect providers, as an
//! AuthenticationConfiguration (apiserver.config.k8s.io/v1) says.
//!
//! ```text
//!  configuration ─► config.rs ─► Issuer: audiences, rules, claims ─► user  (claims.rs)
//!  token ─► whose? ─► keys.rs: discovery, JWKS, kept ─► signature ─► times, audience ─► rules
//! ```

mod claims;
mod config;
mod keys;

use std::sync::Arc;

use hull_api::ObjectExt;
use parking_lot::RwLock;
use serde_json::Value;

use super::{UserInfo, jws::Jws};
use claims::ClaimRules;
use keys::IssuerKeys;

pub use config::AuthenticationConfigError;

/// Seconds that a token may be ahead of this machine's clock.
const NOT_BEFORE_LEEWAY_SECONDS: i64 = 300;

/// Whose tokens are believed besides the cluster's own. A clone is the same list: what replaces
/// the issuers of one replaces those of the other.
#[derive(Debug, Clone, Default)]
pub struct JwtIssuers(Arc<RwLock<Arc<Vec<Issuer>>>>);

/// One of them.
#[derive(Debug)]
struct Issuer {
    url: String,
    audiences: Vec<String>,
    rules: ClaimRules,
    keys: IssuerKeys,
}

impl JwtIssuers {
    /// Reads an AuthenticationConfiguration, YAML.
    ///
    /// # Errors
    /// What is wrong with it, by field.
    pub fn parse(text: &str) -> Result<Self, AuthenticationConfigError> {
        let issuers = JwtIssuers::default();
        issuers.replace(text)?;
        Ok(issuers)
    }

    /// From now on those of this AuthenticationConfiguration are believed, and no others.
    ///
    /// # Errors
    /// What is wrong with it, by field; nothing has changed then.
    pub fn replace(&self, text: &str) -> Result<(), AuthenticationConfigError> {
        let issuers = Arc::new(config::read(text)?);
        *self.0.write() = issuers;
        Ok(())
    }

    /// The user of a token; `None`: it is of another issuer. An error says why it is not believed,
    /// for the log: clients are told nothing.
    pub(crate) async fn user(&self, token: &str) -> Option<Result<UserInfo, String>> {
        let token = Jws::parse(token)?;
        let of = token.claims.str_at("/iss");
        let issuers = self.0.read().clone();
        let issuer = issuers.iter().find(|issuer| issuer.url == of)?;
        Some(issuer.check(&token).await)
    }
}

impl Issuer {
    async fn check(&self, token: &Jws<'_>) -> Result<UserInfo, String> {
        let keys = self.keys.named(&token.key_id).await?;
        if !keys.iter().any(|key| token.is_by(key)) {
            return Err(format!(
                "no key of the issuer made the signature ({})",
                token.algorithm
            ));
        }
        self.user_of(&token.claims, jiff::Timestamp::now().as_second())
    }

    /// Of the claims of a token with a good signature.
    fn user_of(&self, claims: &Value, now: i64) -> Result<UserInfo, String> {
        // Times may have fractions (RFC 7519 §2).
        let time = |name: &str| claims.get(name).and_then(Value::as_f64);
        let expires = time("exp").ok_or("it has no end (exp)")?;
        if now as f64 >= expires {
            return Err("it has expired".into());
        }
        if time("nbf").is_some_and(|begin| (now + NOT_BEFORE_LEEWAY_SECONDS) as f64 <= begin) {
            return Err("it does not hold yet (nbf)".into());
        }
        let audience = claims.get("aud").unwrap_or(&Value::Null);
        let is_ours = |text: &Value| {
            text.as_str()
                .is_some_and(|text| self.audiences.iter().any(|ours| ours == text))
        };
        if !is_ours(audience)
            && !audience
                .as_array()
                .is_some_and(|all| all.iter().any(is_ours))
        {
            return Err(format!(
                "it is for {audience}, not for {:?}",
                self.audiences
            ));
        }
        self.rules.user(claims)
    }
}

#[cfg(test)]
mod tests;
