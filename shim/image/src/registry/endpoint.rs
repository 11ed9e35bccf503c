//! Which addresses serve a registry, and with which trust.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use parking_lot::Mutex;
use reqwest::redirect::{self, Policy};
use reqwest::{Certificate, Client, Url};
use tracing::warn;

use crate::config::{CONNECT_TIMEOUT, HostConfig, MAX_REDIRECTS, RegistryConfig, scaled};
use crate::error::OpenError;

/// Docker Hub's name in references.
const DOCKER_HUB: &str = "docker.io";
/// Docker Hub's address.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const USER_AGENT: &str = concat!("hull/", env!("CARGO_PKG_VERSION"));

/// One address that serves a registry.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Base URL: scheme, host and port.
    pub base: Url,
    pub client: Client,
    /// Whether a pull's credentials may be sent to it.
    pub takes_credentials: bool,
    /// The registry's name, where this address is not the registry's own (query parameter `ns`).
    pub namespace: Option<String>,
}

/// All registries, with their HTTP clients.
pub(crate) struct Registries {
    config: RegistryConfig,
    clients: Mutex<HashMap<Trust, Client>>,
}

/// What an HTTP client trusts; clients with equal trust are one client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Trust {
    accept_any_certificate: bool,
    ca_file: Option<PathBuf>,
}

impl Registries {
    /// Checks the configuration, so that a mistake shows at start and not at a pull.
    pub fn new(config: RegistryConfig) -> Result<Self, OpenError> {
        // A process that has chosen another provider keeps it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registries = Self {
            config,
            clients: Mutex::new(HashMap::new()),
        };
        for registry in registries.config.hosts.keys() {
            registries
                .endpoints(registry)
                .map_err(|reason| OpenError::Registry {
                    registry: registry.clone(),
                    reason,
                })?;
        }
        Ok(registries)
    }

    /// The addresses of `registry` in the order in which they are tried.
    pub fn endpoints(&self, registry: &str) -> Result<Vec<Endpoint>, String> {
        let default = HostConfig::default();
        let host = self.config.hosts.get(registry).unwrap_or(&default);
        let trust = Trust {
            accept_any_certificate: host.insecure,
            ca_file: host.ca_file.clone(),
        };
        let client = self.client(&trust)?;
        let mut endpoints = Vec::with_capacity(host.endpoints.len() + 1);
        for address in &host.endpoints {
            endpoints.push(Endpoint {
                base: parse_base(address)?,
                client: client.clone(),
                takes_credentials: host.forward_credentials,
                namespace: Some(registry.to_owned()),
            });
        }
        if host.fall_back || host.endpoints.is_empty() {
            let plain = host.insecure || (is_loopback(registry) && host.ca_file.is_none());
            let scheme = if plain { "http" } else { "https" };
            let address = if registry == DOCKER_HUB {
                DOCKER_HUB_HOST
            } else {
                registry
            };
            endpoints.push(Endpoint {
                base: parse_base(&format!("{scheme}://{address}"))?,
                client,
                takes_credentials: true,
                namespace: None,
            });
        }
        Ok(endpoints)
    }

    fn client(&self, trust: &Trust) -> Result<Client, String> {
        if let Some(client) = self.clients.lock().get(trust) {
            return Ok(client.clone());
        }
        let client = build_client(trust)?;
        self.clients.lock().insert(trust.clone(), client.clone());
        Ok(client)
    }
}

fn build_client(trust: &Trust) -> Result<Client, String> {
    let mut authorities = Vec::new();
    if let Some(path) = &trust.ca_file {
        let pem = fs::read(path).map_err(|e| format!("reading ca_file {}: {e}", path.display()))?;
        authorities = Certificate::from_pem_bundle(&pem)
            .map_err(|e| format!("ca_file {}: {e}", path.display()))?;
        if authorities.is_empty() {
            return Err(format!("ca_file {} holds no certificate", path.display()));
        }
    }
    let builder = || {
        Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(scaled(CONNECT_TIMEOUT))
            .redirect(Policy::custom(follow))
            .tls_danger_accept_invalid_certs(trust.accept_any_certificate)
    };
    match builder().tls_certs_merge(authorities.clone()).build() {
        Ok(client) => Ok(client),
        Err(e) => {
            // A machine without ca-certificates can still use registries over HTTP and those
            // with a CA file of their own.
            warn!(error = %e, "system certificates are not usable, trusting configured ones only");
            let client = builder().tls_certs_only(authorities).build();
            client.map_err(|e| format!("making an HTTP client: {e}"))
        }
    }
}

/// Follows redirects (registries send blobs to object storage) but never from HTTPS down to HTTP.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let downgrade = attempt.url().scheme() != "https"
        && attempt
            .previous()
            .last()
            .is_some_and(|url| url.scheme() == "https");
    if downgrade {
        attempt.error("redirect from https to http")
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("too many redirects")
    } else {
        attempt.follow()
    }
}

fn parse_base(address: &str) -> Result<Url, String> {
    let url = Url::parse(address).map_err(|e| format!("endpoint {address}: {e}"))?;
    let plain_base = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some()
        && url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty();
    if plain_base {
        Ok(url)
    } else {
        Err(format!(
            "endpoint {address}: want http://HOST[:PORT] or https://HOST[:PORT]"
        ))
    }
}

/// Whether a registry's name is a loopback address, which Docker reaches by HTTP.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    };
    host == "localhost"
        || host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(toml_like: &[(&str, HostConfig)]) -> Registries {
        let hosts = toml_like
            .iter()
            .map(|(name, host)| ((*name).to_owned(), host.clone()));
        Registries::new(RegistryConfig {
            hosts: hosts.collect(),
        })
        .unwrap()
    }

    fn bases(registries: &Registries, name: &str) -> Vec<String> {
        let endpoints = registries.endpoints(name).unwrap();
        endpoints
            .iter()
            .map(|endpoint| endpoint.base.to_string())
            .collect()
    }

    #[test]
    fn mirrors_come_first_and_get_no_credentials() {
        let host = HostConfig {
            endpoints: vec!["http://127.0.0.1:5000".to_owned()],
            ..HostConfig::default()
        };
        let registries = registries(&[("docker.io", host)]);
        assert_eq!(
            bases(&registries, "docker.io"),
            ["http://127.0.0.1:5000/", "https://registry-1.docker.io/"]
        );
        let endpoints = registries.endpoints("docker.io").unwrap();
        assert!(!endpoints[0].takes_credentials);
        assert!(endpoints[1].takes_credentials);
    }

    #[test]
    fn http_only_where_configured_or_loopback() {
        let insecure = HostConfig {
            insecure: true,
            ..HostConfig::default()
        };
        let registries = registries(&[("lab.example", insecure)]);
        assert_eq!(bases(&registries, "lab.example"), ["http://lab.example/"]);
        assert_eq!(bases(&registries, "quay.io"), ["https://quay.io/"]);
        assert_eq!(
            bases(&registries, "localhost:5000"),
            ["http://localhost:5000/"]
        );
        assert_eq!(bases(&registries, "127.0.0.2"), ["http://127.0.0.2/"]);
        assert_eq!(
            bases(&registries, "127.evil.example"),
            ["https://127.evil.example/"]
        );
    }

    #[test]
    fn a_wrong_endpoint_is_refused_when_the_store_opens() {
        for wrong in ["127.0.0.1:5000", "ftp://x", "http://x/path", "http://u:p@x"] {
            let host = HostConfig {
                endpoints: vec![wrong.to_owned()],
                ..HostConfig::default()
            };
            let hosts = [("docker.io".to_owned(), host)].into_iter().collect();
            assert!(
                Registries::new(RegistryConfig { hosts }).is_err(),
                "{wrong}"
            );
        }
    }
}
