//! One pull at one endpoint: requests, authorization, and answers turned into causes.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tracing::debug;

use super::auth::{Challenge, RegistryAuth};
use super::endpoint::Endpoint;
use super::manifest::ACCEPTED_MANIFESTS;
use crate::config::{MAX_ERROR_BODY_BYTES, PROGRESS_TIMEOUT, RESPONSE_TIMEOUT, scaled};
use crate::error::PullCause;

/// Answer of a token service, in bytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// A manifest as it arrived, its digest computed here.
pub(crate) struct RawManifest {
    pub body: Bytes,
    pub digest: String,
    pub content_type: Option<String>,
}

/// A conversation with one endpoint about one repository.
pub(crate) struct Session {
    endpoint: Endpoint,
    repository: String,
    auth: RegistryAuth,
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Session {
    pub fn new(endpoint: Endpoint, repository: &str, auth: &RegistryAuth) -> Self {
        let auth = if endpoint.takes_credentials {
            auth.clone()
        } else {
            RegistryAuth::Anonymous
        };
        let authorization = match &auth {
            RegistryAuth::RegistryToken(token) => secret_header(&format!("Bearer {token}")),
            _ => None,
        };
        Self {
            endpoint,
            repository: repository.to_owned(),
            auth,
            authorization: Mutex::new(authorization),
        }
    }

    /// The endpoint's address, for messages.
    pub fn address(&self) -> String {
        self.endpoint.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Fetches a manifest by tag or digest. A digest asked for, or promised by the registry, is
    /// verified.
    pub async fn manifest(&self, version: &str, limit: u64) -> Result<RawManifest, PullCause> {
        let what = format!("manifest {}:{version}", self.repository);
        let url = self.url("manifests", version)?;
        let response = self.get(&url, Some(ACCEPTED_MANIFESTS), 0, &what).await?;
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let promised = header("docker-content-digest");
        let content_type = header(CONTENT_TYPE.as_str());
        let body = read_body(response, limit, &what).await?;
        let digest = sha256_digest(&body);
        let expected = if version.starts_with("sha256:") {
            Some(version.to_owned())
        } else {
            promised.filter(|promised| promised.starts_with("sha256:"))
        };
        match expected {
            Some(expected) if expected != digest => Err(PullCause::DigestMismatch {
                what,
                expected,
                actual: digest,
            }),
            _ => Ok(RawManifest {
                body,
                digest,
                content_type,
            }),
        }
    }

    /// Fetches and verifies a blob that is small enough to hold in memory.
    pub async fn small_blob(
        &self,
        what: &str,
        digest: &str,
        size: u64,
        limit: u64,
    ) -> Result<Bytes, PullCause> {
        if size > limit {
            return Err(PullCause::TooLarge {
                what: what.to_owned(),
                actual: size,
                limit,
            });
        }
        let body = read_body(self.blob(digest, 0).await?, limit, what).await?;
        let actual = sha256_digest(&body);
        if actual == digest {
            return Ok(body);
        }
        Err(PullCause::DigestMismatch {
            what: what.to_owned(),
            expected: digest.to_owned(),
            actual,
        })
    }

    /// Asks for a blob from byte `offset` on. The status of the answer is 200 (from the start,
    /// whatever was asked) or 206.
    pub async fn blob(&self, digest: &str, offset: u64) -> Result<Response, PullCause> {
        let url = self.url("blobs", digest)?;
        self.get(&url, None, offset, &format!("blob {digest}"))
            .await
    }

    fn url(&self, kind: &str, version: &str) -> Result<Url, PullCause> {
        let path = format!("v2/{}/{kind}/{version}", self.repository);
        let mut url = self
            .endpoint
            .base
            .join(&path)
            .map_err(|e| PullCause::Internal(format!("address of {kind} {version}: {e}")))?;
        if let Some(namespace) = &self.endpoint.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    async fn get(
        &self,
        url: &Url,
        accept: Option<&str>,
        offset: u64,
        what: &str,
    ) -> Result<Response, PullCause> {
        let mut authorized = false;
        loop {
            let mut request = self.endpoint.client.get(url.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let authorization = self.authorization.lock().clone();
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = send(request, what).await?;
            if response.status() == StatusCode::UNAUTHORIZED && !authorized {
                self.authorize(&response).await?;
                authorized = true;
                continue;
            }
            return if response.status().is_success() {
                Ok(response)
            } else {
                Err(refusal(response, what).await)
            };
        }
    }

    /// Answers the challenge of a 401 with this pull's credentials.
    async fn authorize(&self, response: &Response) -> Result<(), PullCause> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let challenges: Vec<_> = headers
            .iter()
            .filter_map(|header| Challenge::parse(header.to_str().ok()?))
            .collect();
        let bearer = challenges
            .iter()
            .find(|c| matches!(c, Challenge::Bearer { .. }));
        let header = match (bearer.or(challenges.first()), &self.auth) {
            (
                Some(Challenge::Bearer {
                    realm,
                    service,
                    scope,
                }),
                _,
            ) => {
                let token = self
                    .fetch_token(realm, service.as_deref(), scope.as_deref())
                    .await?;
                secret_header(&format!("Bearer {token}"))
            }
            (Some(Challenge::Basic), RegistryAuth::Basic { username, password }) => {
                secret_header(&format!("Basic {}", basic(username, password)))
            }
            (Some(Challenge::Basic), RegistryAuth::Anonymous) => {
                let reason = "the registry asks for a user name and password and none was given";
                return Err(PullCause::Unauthorized(reason.to_owned()));
            }
            (Some(Challenge::Basic), _) => {
                let reason = "the registry asks for a user name and password, not for a token";
                return Err(PullCause::Unauthorized(reason.to_owned()));
            }
            (None, _) => {
                let reason = "the registry asks for a kind of authentication that is not known";
                return Err(PullCause::Unauthorized(reason.to_owned()));
            }
        };
        let invalid = || PullCause::Unauthorized("credentials hold control characters".to_owned());
        *self.authorization.lock() = Some(header.ok_or_else(invalid)?);
        Ok(())
    }

    async fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<String, PullCause> {
        let mut url = Url::parse(realm)
            .map_err(|e| PullCause::Protocol(format!("address of the token service: {e}")))?;
        if url.scheme() != "https" && self.endpoint.base.scheme() == "https" {
            let reason = format!("token service {realm} is not reached by https");
            return Err(PullCause::Protocol(reason));
        }
        let default_scope = format!("repository:{}:pull", self.repository);
        let mut form = vec![("scope", scope.unwrap_or(&default_scope))];
        form.extend(service.map(|service| ("service", service)));
        let request = match &self.auth {
            RegistryAuth::IdentityToken(token) => {
                form.push(("grant_type", "refresh_token"));
                form.push(("client_id", "hull"));
                form.push(("refresh_token", token));
                let mut encoded = url.clone();
                encoded.query_pairs_mut().clear().extend_pairs(&form);
                let body = encoded.query().unwrap_or_default().to_owned();
                let request = self.endpoint.client.post(url);
                request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(body)
            }
            auth => {
                url.query_pairs_mut().extend_pairs(&form);
                let request = self.endpoint.client.get(url);
                match auth {
                    RegistryAuth::Basic { username, password } => {
                        request.basic_auth(username, Some(password))
                    }
                    _ => request,
                }
            }
        };
        debug!(realm, scope, "asking the token service");
        let what = format!("token of {realm}");
        let response = send(request, &what).await?;
        if !response.status().is_success() {
            return Err(refusal(response, &what).await);
        }
        let body = read_body(response, MAX_TOKEN_BYTES, &what).await?;
        let token: Token = serde_json::from_slice(&body)
            .map_err(|e| PullCause::Protocol(format!("{what}: {e}")))?;
        token
            .token
            .or(token.access_token)
            .ok_or_else(|| PullCause::Protocol(format!("{what}: no token in the answer")))
    }
}

/// `sha256:` and the digest of `content`.
pub(crate) fn sha256_digest(content: &[u8]) -> String {
    format_digest(&Sha256::digest(content))
}

/// `sha256:` and the hex digits of a finished hash.
pub(crate) fn format_digest(hash: &[u8]) -> String {
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

fn basic(username: &str, password: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"))
}

fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

async fn send(request: reqwest::RequestBuilder, what: &str) -> Result<Response, PullCause> {
    let patience = scaled(RESPONSE_TIMEOUT);
    match timeout(patience, request.send()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(e)) => Err(PullCause::Unavailable(format!("{what}: {}", reasons(e)))),
        Err(_) => Err(silence(what, patience)),
    }
}

pub(super) fn silence(what: &str, patience: Duration) -> PullCause {
    PullCause::Unavailable(format!(
        "{what}: nothing received for {} s",
        patience.as_secs()
    ))
}

/// The whole chain of an HTTP error in one line, without the address (the error's head has it).
pub(super) fn reasons(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// The cause that a refusing answer stands for.
async fn refusal(response: Response, what: &str) -> PullCause {
    let status = response.status();
    let body = read_prefix(response, MAX_ERROR_BODY_BYTES).await;
    let words = match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) if !body.errors.is_empty() => {
            let items = body
                .errors
                .iter()
                .map(|item| format!("{} {}", item.code, item.message));
            items.collect::<Vec<_>>().join("; ")
        }
        _ => String::from_utf8_lossy(&body)
            .trim()
            .chars()
            .take(256)
            .collect(),
    };
    let detail = format!("{status}: {words}");
    match status {
        StatusCode::NOT_FOUND => PullCause::NotFound {
            what: what.to_owned(),
            detail,
        },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            PullCause::Unauthorized(format!("{what}: {detail}"))
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            PullCause::Unavailable(format!("{what}: {detail}"))
        }
        _ if status.is_server_error() => PullCause::Unavailable(format!("{what}: {detail}")),
        _ => PullCause::Protocol(format!("{what}: {detail}")),
    }
}

async fn read_prefix(mut response: Response, limit: usize) -> Bytes {
    let mut body = BytesMut::new();
    let patience = scaled(PROGRESS_TIMEOUT);
    while let Ok(Ok(Some(chunk))) = timeout(patience, response.chunk()).await {
        body.extend_from_slice(&chunk);
        if body.len() >= limit {
            body.truncate(limit);
            break;
        }
    }
    body.freeze()
}

async fn read_body(mut response: Response, limit: u64, what: &str) -> Result<Bytes, PullCause> {
    let too_large = |actual| PullCause::TooLarge {
        what: what.to_owned(),
        actual,
        limit,
    };
    if let Some(length) = response.content_length().filter(|length| *length > limit) {
        return Err(too_large(length));
    }
    let mut body = BytesMut::new();
    let patience = scaled(PROGRESS_TIMEOUT);
    loop {
        let chunk = match timeout(patience, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(body.freeze()),
            Ok(Err(e)) => return Err(PullCause::Unavailable(format!("{what}: {}", reasons(e)))),
            Err(_) => return Err(silence(what, patience)),
        };
        body.extend_from_slice(&chunk);
        if body.len() as u64 > limit {
            return Err(too_large(body.len() as u64));
        }
    }
}
