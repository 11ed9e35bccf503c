//! The service account tokens of one pod: asked for by TokenRequest, bound to the pod, and asked
//! for anew when most of their life is over.
//!
//! A worker refreshes them before it writes volumes; it does so at least once per resync interval,
//! which is far shorter than the fifth of a token's shortest life (ten minutes) that is left then.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::env::ConfigError;
use crate::pod::identity::PodIdentity;

/// The API server's default for `expirationSeconds`.
const DEFAULT_LIFETIME_SECONDS: i64 = 3600;
/// The part of a token's life, percent, after which it is replaced.
const REFRESH_PERCENT: i64 = 80;
/// A token is replaced at this age however long it lives.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// The account of a pod that names none.
const DEFAULT_ACCOUNT: &str = "default";

/// What tells a pod's tokens apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    audience: String,
    lifetime_seconds: i64,
}

impl Key {
    fn of(projection: &ServiceAccountTokenProjection) -> Self {
        Key {
            audience: projection.audience.clone().unwrap_or_default(),
            lifetime_seconds: projection
                .expiration_seconds
                .unwrap_or(DEFAULT_LIFETIME_SECONDS),
        }
    }
}

#[derive(Clone)]
struct Token {
    text: String,
    expires: Timestamp,
    refresh_at: Timestamp,
}

/// Where tokens come from.
pub(crate) trait Issuer {
    /// One TokenRequest for a service account of the pod's namespace.
    async fn issue(
        &self,
        namespace: &str,
        account: &str,
        request: &TokenRequest,
    ) -> Result<TokenRequest, String>;
}

impl Issuer for Client {
    async fn issue(
        &self,
        namespace: &str,
        account: &str,
        request: &TokenRequest,
    ) -> Result<TokenRequest, String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.clone(), namespace);
        let parameters = PostParams::default();
        let answer = api.create_token_request(account, &parameters, request);
        answer.await.map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            error => error.to_string(),
        })
    }
}

/// The tokens of one pod.
#[derive(Default)]
pub struct PodTokens {
    tokens: HashMap<Key, Token>,
    /// Why the last request for a token failed.
    failures: HashMap<Key, String>,
}

impl PodTokens {
    /// Asks for every token that the pod's volumes name and that is missing or due. A failure
    /// leaves a token that still lives in force; otherwise [`PodTokens::get`] tells it.
    pub(crate) async fn refresh(
        &mut self,
        issuer: &impl Issuer,
        identity: &PodIdentity,
        pod: &Pod,
        now: Timestamp,
    ) {
        for projection in projections(pod) {
            let key = Key::of(projection);
            if self.tokens.get(&key).is_some_and(|t| now < t.refresh_at) {
                continue;
            }
            let account = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.service_account_name.as_deref())
                .filter(|name| !name.is_empty())
                .unwrap_or(DEFAULT_ACCOUNT);
            let request = request(identity, &key);
            let issued = issuer.issue(&identity.namespace, account, &request).await;
            match issued.and_then(|answer| token(answer, now)) {
                Ok(token) => {
                    tracing::debug!(pod = %identity, account, expires = %token.expires, "token issued");
                    self.failures.remove(&key);
                    self.tokens.insert(key, token);
                }
                Err(message) => {
                    tracing::warn!(pod = %identity, account, cause = message, "token not issued");
                    if self.tokens.get(&key).is_some_and(|t| t.expires <= now) {
                        self.tokens.remove(&key);
                    }
                    self.failures.insert(key, message);
                }
            }
        }
    }

    /// The present token of a projection.
    pub(crate) fn get(
        &self,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<&str, ConfigError> {
        let key = Key::of(projection);
        if let Some(token) = self.tokens.get(&key) {
            return Ok(&token.text);
        }
        let message = self.failures.get(&key).map_or("not asked for", |m| m);
        Err(ConfigError::Invalid(format!(
            "failed to fetch token: {message}"
        )))
    }
}

fn projections(pod: &Pod) -> impl Iterator<Item = &ServiceAccountTokenProjection> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| source.service_account_token.as_ref())
}

fn request(identity: &PodIdentity, key: &Key) -> TokenRequest {
    let audiences = Some(key.audience.clone()).filter(|audience| !audience.is_empty());
    TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: audiences.map(|audience| vec![audience]),
            expiration_seconds: Some(key.lifetime_seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(identity.name.clone()),
                uid: Some(identity.uid.clone()),
            }),
        }),
        ..Default::default()
    }
}

/// A token and when to replace it: at 80% of the life that the API server gave it, which may be
/// another than was asked for.
fn token(answer: TokenRequest, now: Timestamp) -> Result<Token, String> {
    let missing = "the answer holds no token";
    let status = answer.status.ok_or(missing)?;
    let expires = status.expiration_timestamp.ok_or(missing)?.0;
    let life = expires.duration_since(now).as_secs().max(0);
    let age = SignedDuration::from_secs(life * REFRESH_PERCENT / 100).min(MAX_AGE);
    Ok(Token {
        text: status.token.ok_or(missing)?,
        expires,
        refresh_at: now.checked_add(age).unwrap_or(expires),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use serde_json::json;

    /// Issues `token-1`, `token-2`...; fails while told to.
    #[derive(Default)]
    struct FakeIssuer {
        asked: Mutex<Vec<(String, TokenRequest)>>,
        failure: Mutex<Option<String>>,
        now: Mutex<i64>,
    }

    impl Issuer for FakeIssuer {
        async fn issue(
            &self,
            _: &str,
            account: &str,
            request: &TokenRequest,
        ) -> Result<TokenRequest, String> {
            if let Some(failure) = self.failure.lock().clone() {
                return Err(failure);
            }
            let mut asked = self.asked.lock();
            asked.push((account.to_owned(), request.clone()));
            let expires =
                *self.now.lock() + request.spec.as_ref().unwrap().expiration_seconds.unwrap();
            let status = json!({"token": format!("token-{}", asked.len()),
                "expirationTimestamp": Timestamp::from_second(expires).unwrap()});
            let mut answer = request.clone();
            answer.status = serde_json::from_value(status).unwrap();
            Ok(answer)
        }
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"containers": [], "serviceAccountName": "robot", "volumes": [{"name": "v",
                "projected": {"sources": [{"serviceAccountToken":
                    {"path": "token", "expirationSeconds": 1000, "audience": "vault"}}]}}]}
        }))
        .unwrap()
    }

    async fn refresh(tokens: &mut PodTokens, issuer: &FakeIssuer, second: i64) {
        let pod = pod();
        *issuer.now.lock() = second;
        let now = Timestamp::from_second(second).unwrap();
        let identity = PodIdentity::of(&pod).unwrap();
        tokens.refresh(issuer, &identity, &pod, now).await;
    }

    fn present(tokens: &PodTokens) -> String {
        let pod = pod();
        let projection = projections(&pod).next().unwrap();
        match tokens.get(projection) {
            Ok(token) => token.to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn token_is_replaced_at_four_fifths_of_its_life() {
        let (mut tokens, issuer) = (PodTokens::default(), FakeIssuer::default());
        refresh(&mut tokens, &issuer, 0).await;
        assert_eq!(present(&tokens), "token-1");
        refresh(&mut tokens, &issuer, 799).await;
        assert_eq!(present(&tokens), "token-1");
        refresh(&mut tokens, &issuer, 800).await;
        assert_eq!(present(&tokens), "token-2");
        let asked = issuer.asked.lock();
        let (account, request) = &asked[0];
        assert_eq!(account, "robot");
        let spec = request.spec.as_ref().unwrap();
        assert_eq!(spec.audiences.as_deref().unwrap(), ["vault"]);
        let bound = spec.bound_object_ref.as_ref().unwrap();
        assert_eq!(
            (bound.name.as_deref(), bound.uid.as_deref()),
            (Some("p"), Some("u"))
        );
    }

    #[tokio::test]
    async fn failed_renewal_keeps_a_living_token_and_tells_of_a_dead_one() {
        let (mut tokens, issuer) = (PodTokens::default(), FakeIssuer::default());
        *issuer.failure.lock() = Some("serviceaccounts \"robot\" not found".into());
        refresh(&mut tokens, &issuer, 0).await;
        let refusal = "failed to fetch token: serviceaccounts \"robot\" not found";
        assert_eq!(present(&tokens), refusal);
        *issuer.failure.lock() = None;
        refresh(&mut tokens, &issuer, 0).await;
        *issuer.failure.lock() = Some("serviceaccounts \"robot\" not found".into());
        refresh(&mut tokens, &issuer, 900).await;
        assert_eq!(present(&tokens), "token-1");
        refresh(&mut tokens, &issuer, 1000).await;
        assert_eq!(present(&tokens), refusal);
    }
}
