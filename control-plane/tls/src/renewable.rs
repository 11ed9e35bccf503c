//! A certificate that is replaced while it is in use.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Certificate or key is no PEM.
    #[error("cannot parse {what}: {source}")]
    Pem {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The certificate's PEM holds none.
    #[error("there is no certificate")]
    Empty,
    /// The key is of an unknown kind, or another certificate's.
    #[error("the key cannot be used: {0}")]
    Key(#[from] rustls::Error),
}

/// A certificate chain with its key. Clones share it: after a [`RenewableCertificate::replace`] new
/// connections of all servers and clients that use it are made with the new one, open connections
/// stay.
#[derive(Clone)]
pub struct RenewableCertificate(Arc<RwLock<Arc<CertifiedKey>>>);

impl std::fmt::Debug for RenewableCertificate {
    // Keys stay out of logs.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RenewableCertificate")
            .finish_non_exhaustive()
    }
}

fn certified(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, CertificateError> {
    let bad = |what| move |source| CertificateError::Pem { what, source };
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(bad("the certificate"))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(bad("the private key"))?;
    let provider = rustls::crypto::ring::default_provider();
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider)?))
}

impl RenewableCertificate {
    /// From PEM: the chain, the holder's certificate first, and its private key.
    ///
    /// # Errors
    /// When they are not PEM, or do not go together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        Ok(Self(Arc::new(RwLock::new(certified(chain, key)?))))
    }

    /// Takes another one.
    ///
    /// # Errors
    /// As for [`RenewableCertificate::from_pem`]; the old one stays.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), CertificateError> {
        let new = certified(chain, key)?;
        *self.0.write() = new;
        Ok(())
    }

    /// The holder's certificate at the moment.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.0.read().cert.first().cloned()
    }
}

impl ResolvesServerCert for RenewableCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

impl ResolvesClientCert for RenewableCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
