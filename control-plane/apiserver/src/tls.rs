//! The TLS settings, and who a client certificate belongs to.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, crypto::CryptoProvider, server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::FromDer;

use crate::{
    ServerError, UserInfo,
    pki::{CertPair, ClusterPki, PkiError},
};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn parse_error(what: &'static str) -> impl Fn(rustls_pki_types::pem::Error) -> PkiError {
    move |error| PkiError::Parse {
        what,
        why: error.to_string(),
    }
}

/// Certificates and key of a pair.
pub(crate) fn chain(
    pair: &CertPair,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let certs = CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(parse_error("a certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes())
        .map_err(parse_error("a private key"))?;
    Ok((certs, key))
}

fn roots(ca_pem: &str) -> Result<RootCertStore, ServerError> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(cert.map_err(parse_error("the CA's certificate"))?)?;
    }
    Ok(roots)
}

/// The server's settings: a client certificate is asked for, not demanded (health checks
/// come without one); one that is shown must be signed by the CA.
pub(crate) fn server_config(pki: &ClusterPki) -> Result<ServerConfig, ServerError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pki.ca_pem())?), provider())
            .allow_unauthenticated()
            .build()?;
    let (mut certs, key) = chain(pki.server())?;
    // The CA too: a joining node knows its hash and takes it from here.
    let ca = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes());
    certs.push(ca.map_err(parse_error("the CA's certificate"))?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certs, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The settings towards node agents: their certificate must be signed by the CA.
pub(crate) fn node_client_config(pki: &ClusterPki) -> Result<ClientConfig, ServerError> {
    let (certs, key) = chain(pki.kubelet_client())?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(pki.ca_pem())?)
        .with_client_auth_cert(certs, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The user in a verified client certificate: common name and organizations.
pub(crate) fn user_of(cert: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, cert) = x509_parser::certificate::X509Certificate::from_der(cert).ok()?;
    let subject = cert.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok().map(str::to_string))
        .collect();
    Some(UserInfo::new(name, groups))
}
