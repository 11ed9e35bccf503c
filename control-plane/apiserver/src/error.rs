//! Why the server could not start or serve.

use crate::pki::PkiError;

/// A failure of the server itself, as opposed to that of one request.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store failed at start.
    #[error("cannot read the store at start: {0}")]
    Store(#[from] hull_store::StoreError),
    /// A certificate is missing or wrong.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A certificate cannot be shown.
    #[error(transparent)]
    Certificate(#[from] hull_tls::CertificateError),
    /// The TLS settings do not fit together.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The CA cannot verify clients.
    #[error("cannot set up client certificate verification: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The key that signs service account tokens is not usable.
    #[error(transparent)]
    SigningKey(#[from] crate::auth::tokens::KeyError),
    /// The listener failed.
    #[error("cannot accept connections: {0}")]
    Listen(#[source] std::io::Error),
    /// The namespaces that every cluster has could not be written.
    #[error("cannot create the initial objects: {0}")]
    Bootstrap(#[source] hull_api::ApiError),
}
