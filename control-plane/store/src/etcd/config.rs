//! Where etcd is and how to talk to it.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

/// The port of an endpoint that names none; etcd's.
const DEFAULT_PORT: u16 = 2379;
/// Default of [`EtcdConfig::compact_interval`]; Kubernetes' interval.
pub const COMPACT_INTERVAL: Duration = Duration::from_secs(300);
/// Default of [`EtcdConfig::request_timeout`].
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither `etcd://` nor `etcds://`.
    #[error(
        "store address {0:?} begins neither with etcd:// (plain) nor with etcds:// (TLS): write for example etcds://10.0.0.1:2379,10.0.0.2:2379"
    )]
    Scheme(String),
    /// Nothing, or something that is no host and port.
    #[error("store address {address:?}: {endpoint:?} is not of the form HOST or HOST:PORT")]
    Endpoint {
        /// The whole address.
        address: String,
        /// The part.
        endpoint: String,
    },
    /// A path behind the endpoints.
    #[error(
        "store address {0:?} has a path: the cluster uses an etcd of its own, without key prefixes"
    )]
    Path(String),
    /// Certificates for an address without TLS.
    #[error("store address {0:?} is without TLS and certificates are given: write etcds://")]
    TlsFilesWithoutTls(String),
    /// TLS without anybody to trust.
    #[error("store address {0:?} needs the CA file of etcd's certificates")]
    NoCa(String),
    /// Only one of certificate and key.
    #[error("the client certificate and its key for etcd are given together or not at all")]
    HalfIdentity,
    /// A file of certificates or keys cannot be used.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// Its purpose.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A member's client address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Certificates for the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: who signed the members' certificates.
    pub ca: PathBuf,
    /// PEM: our certificate and its key, when the members ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Settings of an [`EtcdStore`](super::EtcdStore).
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// All members; any one that answers serves.
    pub endpoints: Vec<Endpoint>,
    /// `None`: without TLS.
    pub tls: Option<TlsFiles>,
    /// Longest time for one request, its retries included.
    pub request_timeout: Duration,
    /// History older than this is compacted by each server that uses the store; `None`: never.
    pub compact_interval: Option<Duration>,
}

impl EtcdConfig {
    /// From an address as in `etcds://10.0.0.1:2379,10.0.0.2:2379`, and the certificates' files.
    ///
    /// # Errors
    /// When the address is malformed or does not fit the files.
    pub fn from_address(
        address: &str,
        ca: Option<PathBuf>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let (tls, rest) = match address.split_once("://") {
            Some(("etcd", rest)) => (false, rest),
            Some(("etcds", rest)) => (true, rest),
            _ => return Err(ConfigError::Scheme(address.to_owned())),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(ConfigError::Path(address.to_owned()));
        }
        let endpoints = rest
            .split(',')
            .map(|part| {
                part.parse().map_err(|()| ConfigError::Endpoint {
                    address: address.to_owned(),
                    endpoint: part.to_owned(),
                })
            })
            .collect::<Result<_, _>>()?;
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(ConfigError::HalfIdentity),
        };
        let tls = match (tls, ca, identity) {
            (true, Some(ca), identity) => Some(TlsFiles { ca, identity }),
            (true, None, _) => return Err(ConfigError::NoCa(address.to_owned())),
            (false, None, None) => None,
            (false, ..) => return Err(ConfigError::TlsFilesWithoutTls(address.to_owned())),
        };
        Ok(EtcdConfig {
            endpoints,
            tls,
            request_timeout: REQUEST_TIMEOUT,
            compact_interval: Some(COMPACT_INTERVAL),
        })
    }
}

impl FromStr for Endpoint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(())?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| ())?;
                match rest.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if rest.is_empty() => (host, None),
                    None => return Err(()),
                }
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(())?,
            None => DEFAULT_PORT,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '@') {
            return Err(());
        }
        Ok(Endpoint {
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(address: &str) -> Result<EtcdConfig, ConfigError> {
        EtcdConfig::from_address(address, None, None, None)
    }

    #[test]
    fn an_address_names_one_or_more_endpoints() {
        let config = plain("etcd://a:1,10.0.0.2,[::1]:3/").unwrap();
        let shown: Vec<_> = config.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a:1", "10.0.0.2:2379", "[::1]:3"]);
        assert!(config.tls.is_none());
    }

    #[test]
    fn malformed_addresses_are_refused_with_the_reason() {
        for (address, reason) in [
            ("http://a:1", "begins neither with etcd://"),
            ("a:1", "begins neither with etcd://"),
            ("etcd://", "is not of the form"),
            ("etcd://a:1,,b:2", "is not of the form"),
            ("etcd://a:0", "is not of the form"),
            ("etcd://a:x", "is not of the form"),
            ("etcd://[::1", "is not of the form"),
            ("etcd://user@a:1", "is not of the form"),
            ("etcd://a:1/prefix", "has a path"),
            ("etcds://a:1", "needs the CA file"),
        ] {
            let error = plain(address).unwrap_err().to_string();
            assert!(error.contains(reason), "{address}: {error}");
        }
    }

    #[test]
    fn certificates_and_address_must_fit() {
        let file = || Some(PathBuf::from("/x"));
        let refused = |address, ca, cert, key| {
            EtcdConfig::from_address(address, ca, cert, key)
                .unwrap_err()
                .to_string()
        };
        assert!(refused("etcd://a", file(), None, None).contains("write etcds://"));
        assert!(refused("etcds://a", file(), file(), None).contains("together"));
        let config = EtcdConfig::from_address("etcds://a", file(), file(), file()).unwrap();
        assert!(config.tls.unwrap().identity.is_some());
    }
}
