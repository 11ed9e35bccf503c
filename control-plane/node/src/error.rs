//! Why the node agent cannot start or go on.

use std::path::PathBuf;

/// Failures that end [`crate::run`]. Everything that concerns one pod is reported on that pod.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The CRI endpoint is not a unix socket address.
    #[error("CRI endpoint {endpoint:?} is not of the form unix:///path")]
    Endpoint {
        /// What was configured.
        endpoint: String,
    },
    /// A directory of the agent cannot be made.
    #[error("cannot make {path}: {source}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTPS server cannot listen.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTPS server's key material is unusable.
    #[error("node server TLS: {message}")]
    Tls {
        /// What is wrong with it.
        message: String,
    },
}
