//! The keys of an issuer: found by OpenID Connect Discovery 1.0, fetched when a token names one
//! that is not known, and kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use hull_api::ObjectExt;
use hull_timeouts::scaled;
use parking_lot::RwLock;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

use crate::{auth::jws::PublicKey, webhook_client::Client};

const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
/// Longest wait for an issuer's document, before scaling.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two fetches: whoever sends tokens with made-up keys makes no more.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// Keys are fetched again after this time, so that those that an issuer has given up go.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// The authorities that Debian's ca-certificates trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// See the module.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    issuer: String,
    /// Where the discovery document is.
    discovery_url: String,
    /// PEM in base64.
    authorities: String,
    kept: RwLock<Kept>,
    /// Held while keys are fetched.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Arc<Vec<PublicKey>>,
    /// When they were fetched.
    at: Option<Instant>,
    /// When that was tried last.
    tried: Option<Instant>,
}

impl IssuerKeys {
    /// `discovery_url` and `authorities` (PEM) may be "".
    ///
    /// # Errors
    /// No authorities that could be trusted.
    pub(super) fn new(
        issuer: &str,
        discovery_url: &str,
        authorities: &str,
    ) -> Result<Self, String> {
        let authorities = match authorities {
            "" => std::fs::read_to_string(SYSTEM_AUTHORITIES)
                .map_err(|error| format!("none, and {SYSTEM_AUTHORITIES}: {error}"))?,
            given => given.to_string(),
        };
        if CertificateDer::pem_slice_iter(authorities.as_bytes())
            .next()
            .is_none()
        {
            return Err("it holds no certificate".into());
        }
        let keys = IssuerKeys {
            issuer: issuer.to_string(),
            discovery_url: match discovery_url {
                "" => format!("{}{DISCOVERY_PATH}", issuer.trim_end_matches('/')),
                given => given.to_string(),
            },
            authorities: STANDARD.encode(authorities),
            kept: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
        };
        keys.client(&keys.discovery_url)?;
        Ok(keys)
    }

    fn client(&self, url: &str) -> Result<Client, String> {
        let config = json!({"url": url, "caBundle": self.authorities});
        Client::read(&config).map_err(|error| error.to_string())
    }

    /// The keys that may have made a signature: those of the name, or all when the token names
    /// none.
    pub(super) async fn named(&self, id: &str) -> Result<Vec<PublicKey>, String> {
        if let Some(found) = self.fresh(id) {
            return Ok(found);
        }
        let _turn = self.turn.lock().await;
        // Somebody else may have fetched them meanwhile.
        if let Some(found) = self.fresh(id) {
            return Ok(found);
        }
        let tried = self.kept.read().tried;
        if tried.is_none_or(|tried| tried.elapsed() >= FETCH_PAUSE) {
            self.fetch().await?;
        }
        let found = self.find(id);
        match found.is_empty() {
            true => Err(format!("the issuer has no key {id:?}")),
            false => Ok(found),
        }
    }

    fn find(&self, id: &str) -> Vec<PublicKey> {
        let keys = self.kept.read().keys.clone();
        let named = keys.iter().filter(|key| id.is_empty() || key.id == id);
        named.cloned().collect()
    }

    /// Those that were fetched not long ago.
    fn fresh(&self, id: &str) -> Option<Vec<PublicKey>> {
        let at = self.kept.read().at;
        at.filter(|at| at.elapsed() < MAX_AGE)?;
        let found = self.find(id);
        (!found.is_empty()).then_some(found)
    }

    /// Of an issuer that does not answer the old keys stay.
    async fn fetch(&self) -> Result<(), String> {
        self.kept.write().tried = Some(Instant::now());
        let fetched = self.fetch_keys().await;
        match fetched {
            Ok(keys) => {
                let mut kept = self.kept.write();
                kept.keys = Arc::new(keys);
                kept.at = Some(Instant::now());
                Ok(())
            }
            Err(error) => {
                tracing::warn!(issuer = self.issuer, %error, "the issuer's keys cannot be fetched");
                match self.kept.read().keys.is_empty() {
                    true => Err(error),
                    false => Ok(()),
                }
            }
        }
    }

    async fn fetch_keys(&self) -> Result<Vec<PublicKey>, String> {
        let document = self.get(&self.discovery_url).await?;
        let issuer = document.str_at("/issuer");
        if issuer != self.issuer {
            return Err(format!(
                "{} is the document of the issuer {issuer:?}",
                self.discovery_url
            ));
        }
        let set = self.get(document.str_at("/jwks_uri")).await?;
        let keys = set.list_at("/keys").iter().filter_map(PublicKey::from_jwk);
        Ok(keys.collect())
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        if !url.starts_with("https://") {
            return Err(format!("{url:?} is no https URL"));
        }
        let answer = self.client(url)?.get(scaled(FETCH_TIMEOUT)).await;
        answer.map_err(|error| format!("{url}: {error}"))
    }
}
