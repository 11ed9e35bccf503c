//! The server's TLS: a certificate of its own, and client certificates of the cluster's CA only.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use crate::config::ServerTls;
use crate::error::NodeError;

fn bad(what: &str, error: impl std::fmt::Display) -> NodeError {
    NodeError::Tls {
        message: format!("{what}: {error}"),
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, NodeError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| bad(what, error))?;
    if certificates.is_empty() {
        return Err(bad(what, "holds no certificate"));
    }
    Ok(certificates)
}

/// The acceptor for this key material.
pub(crate) fn acceptor(tls: &ServerTls) -> Result<TlsAcceptor, NodeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.client_ca_pem, "client CA")? {
        roots
            .add(certificate)
            .map_err(|error| bad("client CA", error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| bad("client CA", error))?;
    let key =
        PrivateKeyDer::from_pem_slice(&tls.key_pem).map_err(|error| bad("private key", error))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad("protocol versions", error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&tls.certificate_pem, "certificate")?, key)
        .map_err(|error| bad("certificate", error))?;
    // WebSocket upgrades need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
