//! The cluster's certificates: one CA in a directory, and what it signs.
//!
//! | file | who | use |
//! |---|---|---|
//! | `ca` | `hull-ca` | signs everything |
//! | `apiserver` | `kube-apiserver` | serves the API |
//! | `apiserver-kubelet-client` | `system:masters` | logs and exec at the node agent |
//! | `front-proxy-ca` | `hull-front-proxy-ca` | signs the next one only |
//! | `front-proxy-client` | `front-proxy-client` | tells extension servers who asks |
//! | `admin` | `kubernetes-admin`, `system:masters` | kubectl |
//! | `node-NAME` | `system:node:NAME`, `system:nodes` | node agent to API |
//! | `kubelet-NAME` | `system:node:NAME` | node agent's own server |
//!
//! | `sa` (only `.key`) | | signs the tokens of service accounts |
//!
//! Each other is a pair `X.crt`, `X.key` (PEM, mode 0600). A pair is issued again when it is
//! missing, close to its end, or lacks a wanted name; the CA is kept.

mod issue;
mod kubeconfig;

use std::path::{Path, PathBuf};

pub use issue::CertPair;
pub use kubeconfig::kubeconfig;

use issue::Purpose;

/// Years a CA is valid.
const CA_YEARS: i16 = 10;
/// Years a signed certificate is valid.
const LEAF_YEARS: i16 = 1;
/// A certificate is issued again when it ends within so many days.
const RENEW_DAYS: i64 = 30;
/// The name in the certificate that servers which extend the API trust.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";
/// The address of the `kubernetes` service.
pub const SERVICE_ADDRESS: &str = "10.43.0.1";

/// Why certificates cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("cannot access {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The CA's key is there but not its certificate, or they cannot be read.
    #[error("the CA in {path} is not usable: {why}")]
    BrokenCa {
        /// The directory.
        path: PathBuf,
        /// The cause.
        why: String,
    },
    /// A certificate cannot be made.
    #[error("cannot issue the certificate {name}: {source}")]
    Issue {
        /// Which.
        name: String,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
    /// PEM that does not parse.
    #[error("cannot parse {what}: {why}")]
    Parse {
        /// What.
        what: &'static str,
        /// The cause.
        why: String,
    },
}

/// The CA and the directory of what it signed.
#[derive(Clone)]
pub struct ClusterPki {
    dir: PathBuf,
    ca: CertPair,
    server: CertPair,
    server_names: Vec<String>,
    kubelet_client: CertPair,
    front_proxy_ca: CertPair,
    front_proxy_client: CertPair,
    service_account_key: String,
}

impl std::fmt::Debug for ClusterPki {
    // Keys stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterPki")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl ClusterPki {
    /// Loads the CA and the server's certificates from `dir`, creating what is missing.
    /// `names` are host names and addresses of the server, besides those it always has.
    ///
    /// # Errors
    /// When the directory is not accessible or holds half a CA.
    pub fn load_or_create(dir: impl AsRef<Path>, names: &[String]) -> Result<Self, PkiError> {
        let dir = dir.as_ref().to_path_buf();
        issue::create_dir(&dir)?;
        let ca = issue::load_or_create_ca(&dir, "ca")?;
        let mut all: Vec<String> = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
            "::1",
            SERVICE_ADDRESS,
        ]
        .map(str::to_string)
        .to_vec();
        for name in names {
            if !name.is_empty() && !all.contains(name) {
                all.push(name.clone());
            }
        }
        let server = issue::load_or_issue(
            &dir,
            &ca,
            "apiserver",
            ("kube-apiserver", &[]),
            Purpose::Server(&all),
        )?;
        let kubelet_client = issue::load_or_issue(
            &dir,
            &ca,
            "apiserver-kubelet-client",
            ("kube-apiserver-kubelet-client", &["system:masters"]),
            Purpose::Client,
        )?;
        // Its own authority: who it signed may say who somebody else is.
        let front_proxy_ca = issue::load_or_create_ca(&dir, "front-proxy-ca")?;
        let front_proxy_client = issue::load_or_issue(
            &dir,
            &front_proxy_ca,
            FRONT_PROXY,
            (FRONT_PROXY, &[]),
            Purpose::Client,
        )?;
        let service_account_key = issue::load_or_create_key(&dir, "sa")?;
        Ok(ClusterPki {
            service_account_key,
            dir,
            ca,
            server,
            server_names: all,
            kubelet_client,
            front_proxy_ca,
            front_proxy_client,
        })
    }

    /// Loads them once more: those whose end is near are issued anew, as files too.
    ///
    /// # Errors
    /// As for [`ClusterPki::load_or_create`].
    pub fn renewed(&self) -> Result<Self, PkiError> {
        Self::load_or_create(&self.dir, &self.server_names)
    }

    /// The CA's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca.cert_pem
    }

    /// The CA's private key, PEM (PKCS #8): what the controllers sign nodes' requests with.
    pub fn ca_key_pem(&self) -> &str {
        &self.ca.key_pem
    }

    /// What the API server serves with.
    pub fn server(&self) -> &CertPair {
        &self.server
    }

    /// Names and addresses that the server's certificate was asked to have.
    pub fn server_names(&self) -> &[String] {
        &self.server_names
    }

    /// What the API server shows to node agents.
    pub fn kubelet_client(&self) -> &CertPair {
        &self.kubelet_client
    }

    /// The certificate, PEM, of the CA that signs nothing but [`Self::front_proxy_client`].
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy_ca.cert_pem
    }

    /// What the API server shows to servers that extend the API.
    pub fn front_proxy_client(&self) -> &CertPair {
        &self.front_proxy_client
    }

    /// The private key that signs service account tokens, PEM (PKCS #8).
    pub fn service_account_key(&self) -> &str {
        &self.service_account_key
    }

    /// The administrator's client certificate.
    ///
    /// # Errors
    /// When it cannot be issued or written.
    pub fn admin(&self) -> Result<CertPair, PkiError> {
        self.client("admin", "kubernetes-admin", &["system:masters"])
    }

    /// A node agent's client certificate.
    ///
    /// # Errors
    /// When it cannot be issued or written.
    pub fn node_client(&self, node: &str) -> Result<CertPair, PkiError> {
        self.client(
            &format!("node-{node}"),
            &format!("system:node:{node}"),
            &["system:nodes"],
        )
    }

    /// A node agent's serving certificate, for its names and addresses.
    ///
    /// # Errors
    /// When it cannot be issued or written.
    pub fn kubelet_serving(&self, node: &str, names: &[String]) -> Result<CertPair, PkiError> {
        let mut all = names.to_vec();
        if !all.iter().any(|name| name == node) {
            all.push(node.to_string());
        }
        issue::load_or_issue(
            &self.dir,
            &self.ca,
            &format!("kubelet-{node}"),
            (&format!("system:node:{node}"), &["system:nodes"]),
            Purpose::Server(&all),
        )
    }

    /// Any other client certificate, kept in the directory as `file`.
    ///
    /// # Errors
    /// When it cannot be issued or written.
    pub fn client(
        &self,
        file: &str,
        common_name: &str,
        organizations: &[&str],
    ) -> Result<CertPair, PkiError> {
        issue::load_or_issue(
            &self.dir,
            &self.ca,
            file,
            (common_name, organizations),
            Purpose::Client,
        )
    }

    /// A kubeconfig for `pair` at `server` (`https://host:port`), certificates embedded.
    pub fn kubeconfig(&self, server: &str, user: &str, pair: &CertPair) -> String {
        kubeconfig(server, self.ca_pem(), user, pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_survive_a_restart_and_gain_new_names() {
        let dir = tempfile::tempdir().unwrap();
        let first = ClusterPki::load_or_create(dir.path(), &[]).unwrap();
        let again = ClusterPki::load_or_create(dir.path(), &[]).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(first.server(), again.server());
        let named = ClusterPki::load_or_create(dir.path(), &["10.1.2.3".to_string()]).unwrap();
        assert_eq!(first.ca_pem(), named.ca_pem());
        assert_ne!(first.server(), named.server());
        let kept = ClusterPki::load_or_create(dir.path(), &["10.1.2.3".to_string()]).unwrap();
        assert_eq!(named.server(), kept.server());
    }

    #[test]
    fn half_a_ca_is_an_error_not_a_new_ca() {
        let dir = tempfile::tempdir().unwrap();
        ClusterPki::load_or_create(dir.path(), &[]).unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(
            ClusterPki::load_or_create(dir.path(), &[]),
            Err(PkiError::BrokenCa { .. })
        ));
    }
}
