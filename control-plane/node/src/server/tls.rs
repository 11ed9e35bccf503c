//! The server's TLS: a certificate of its own, and client certificates of the cluster's CA only.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use crate::config::ServerTls;
use crate::error::NodeError;

fn bad(what: &str, error: impl std::fmt::Display) -> NodeError {
    NodeError::Tls {
        message: format!("{what}: {error}"),
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, NodeError> {
    let what = "client CA";
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad(what, error))?;
        roots.add(certificate).map_err(|error| bad(what, error))?;
    }
    if roots.is_empty() {
        return Err(bad(what, "holds no certificate"));
    }
    Ok(roots)
}

/// The acceptor for this key material.
pub(crate) fn acceptor(tls: &ServerTls) -> Result<TlsAcceptor, NodeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(&tls.client_ca_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| bad("client CA", error))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad("protocol versions", error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(tls.certificate.clone()));
    // WebSocket upgrades need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
