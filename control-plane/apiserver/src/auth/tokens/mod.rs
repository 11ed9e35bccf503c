//! Bound service account tokens: JSON web tokens (RFC 7519) that the server signs with ES256 and
//! that end with their service account, pod, node or secret.
//!
//! ```text
//!   TokenRequest ─► claims ─► key: sign ─► token
//!   token ─► key: verify ─► claims ─► still there? ─► UserInfo
//!                                     (account, pod, secret, node, by uid)
//! ```

mod bound;
mod claims;
mod key;

use std::sync::Arc;

use hull_api::{ObjectExt, kinds};
use serde_json::{Value, json};

use super::UserInfo;
use crate::{
    storage::{Storage, Stored},
    watch_cache::WatchCache,
};

pub(crate) use claims::{Binding, Claims, Issue};
pub(crate) use key::{KeyError, SigningKey};

/// The issuer, which is also the audience of tokens for the API itself.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Where the public key is published.
const JWKS_PATH: &str = "/openid/v1/jwks";

/// A token that is not accepted. The client is told no more than that.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// Not one of ours, or changed.
    #[error("invalid bearer token")]
    Invalid,
    /// It has ended, or not begun.
    #[error("invalid bearer token, service account token has expired")]
    Expired,
    /// It is for somebody else to read.
    #[error(
        "invalid bearer token, token audiences {0:?} is invalid for the target audiences {1:?}"
    )]
    Audience(Vec<String>, Vec<String>),
    /// What it is bound to is gone.
    #[error("invalid bearer token, service account token has been invalidated: {0}")]
    Invalidated(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] hull_api::ApiError),
}

/// Signs and checks tokens.
pub(crate) struct Tokens {
    key: SigningKey,
    cache: Arc<WatchCache>,
    storage: Storage,
}

/// A token that was accepted.
pub(crate) struct Accepted {
    pub user: UserInfo,
    /// Those of the token that were asked for.
    pub audiences: Vec<String>,
}

impl Tokens {
    pub(crate) fn new(key: SigningKey, cache: Arc<WatchCache>, storage: Storage) -> Self {
        Tokens {
            key,
            cache,
            storage,
        }
    }

    /// Where the objects are that tokens are bound to.
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Signs a token.
    pub(crate) fn issue(&self, claims: &Claims) -> Result<String, KeyError> {
        self.key.sign(&claims.to_value())
    }

    /// Checks a token; it must be for one of `audiences`.
    pub(crate) async fn check(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Accepted, TokenError> {
        let payload = self.key.verify(token).ok_or(TokenError::Invalid)?;
        let claims = Claims::parse(&payload).ok_or(TokenError::Invalid)?;
        let now = jiff::Timestamp::now().as_second();
        if now >= claims.expires || now < claims.not_before {
            return Err(TokenError::Expired);
        }
        let common: Vec<String> = claims
            .audiences
            .iter()
            .filter(|audience| audiences.contains(audience))
            .cloned()
            .collect();
        if common.is_empty() {
            return Err(TokenError::Audience(claims.audiences, audiences.to_vec()));
        }
        self.check_bound(&claims, now).await?;
        Ok(Accepted {
            user: claims.user(),
            audiences: common,
        })
    }

    async fn check_bound(&self, claims: &Claims, now: i64) -> Result<(), TokenError> {
        let namespace = claims.namespace.as_str();
        let account = &claims.account;
        self.must_exist(&kinds::SERVICE_ACCOUNTS, namespace, account, now)
            .await?;
        if let Some(pod) = &claims.pod {
            self.must_exist(&kinds::PODS, namespace, pod, now).await?;
        }
        if let Some(secret) = &claims.secret {
            self.must_exist(&kinds::SECRETS, namespace, secret, now)
                .await?;
        }
        // The node of a pod is only a remark: the pod decides.
        if let (Some(node), None) = (&claims.node, &claims.pod) {
            self.must_exist(&kinds::NODES, "", node, now).await?;
        }
        Ok(())
    }

    async fn must_exist(
        &self,
        kind: &'static hull_api::Kind,
        namespace: &str,
        binding: &Binding,
        now: i64,
    ) -> Result<(), TokenError> {
        let key = kind.key(namespace, &binding.name);
        if let Some(object) = self.cache.get(kind.storage, &key)
            && bound::holds(
                (object.uid(), object.deletion_timestamp()),
                &binding.uid,
                now,
            )
        {
            return Ok(());
        }
        // The cache may be a moment behind.
        let found = self.storage.get(kind, namespace, &binding.name).await?;
        let holds = |object: &Value| {
            let deleted = object.str_at("/metadata/deletionTimestamp");
            bound::holds((object.uid(), deleted), &binding.uid, now)
        };
        match found {
            Some(Stored { object, .. }) if holds(&object) => Ok(()),
            _ => Err(TokenError::Invalidated(format!(
                "{} {:?} is gone or has another uid",
                kind.singular, binding.name
            ))),
        }
    }

    /// The document at `/.well-known/openid-configuration`.
    pub(crate) fn discovery_document() -> Value {
        json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}{JWKS_PATH}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// The document at `/openid/v1/jwks`.
    pub(crate) fn key_set(&self) -> Value {
        json!({"keys": [self.key.to_jwk()]})
    }
}
