//! The TLS settings, and who a client certificate belongs to.

use std::sync::Arc;

use hull_tls::RenewableCertificate;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, crypto::CryptoProvider, server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
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

/// What the server shows to its clients, to node agents and to servers that extend the API.
#[derive(Debug)]
pub(crate) struct Identities {
    server: RenewableCertificate,
    node_client: RenewableCertificate,
    pub(crate) front_proxy: RenewableCertificate,
}

/// With the CA behind it: a joining node knows its hash and takes it from here.
fn served(pki: &ClusterPki) -> CertPair {
    let mut pair = pki.server().clone();
    pair.cert_pem.push_str(pki.ca_pem());
    pair
}

impl Identities {
    pub(crate) fn new(pki: &ClusterPki) -> Result<Self, ServerError> {
        Ok(Identities {
            server: served(pki).renewable()?,
            node_client: pki.kubelet_client().renewable()?,
            front_proxy: pki.front_proxy_client().renewable()?,
        })
    }

    /// Shows these from now on.
    pub(crate) fn replace(&self, pki: &ClusterPki) -> Result<(), ServerError> {
        for (identity, pair) in [
            (&self.server, &served(pki)),
            (&self.node_client, pki.kubelet_client()),
            (&self.front_proxy, pki.front_proxy_client()),
        ] {
            identity.replace(pair.cert_pem.as_bytes(), pair.key_pem.as_bytes())?;
        }
        Ok(())
    }
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
pub(crate) fn server_config(
    pki: &ClusterPki,
    identities: &Identities,
) -> Result<ServerConfig, ServerError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pki.ca_pem())?), provider())
            .allow_unauthenticated()
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(identities.server.clone()));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The settings towards node agents: their certificate must be signed by the CA.
pub(crate) fn node_client_config(
    pki: &ClusterPki,
    identities: &Identities,
) -> Result<ClientConfig, ServerError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(pki.ca_pem())?)
        .with_client_cert_resolver(Arc::new(identities.node_client.clone()));
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
