//! The cluster's CA, taken from the API server's own handshake and recognised by its hash.
//!
//! Nothing is believed of that first connection but the certificate whose key has the hash that
//! the administrator gave; every later connection is verified with it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use hull_client::timeouts::scaled;
use hull_tls::AnyCertificate;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::FromDer;

/// How long the first connection may take, before scaling.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const PREFIX: &str = "sha256:";

/// `sha256:` and the hash of the certificate's public key (SubjectPublicKeyInfo), as kubeadm
/// writes it.
pub fn hash_of(der: &[u8]) -> anyhow::Result<String> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der)
        .context("the CA's certificate cannot be read")?;
    let hash = Sha256::digest(certificate.public_key().raw);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{PREFIX}{hex}"))
}

/// The form of a hash, before anything is done with it.
pub fn check_form(hash: &str) -> anyhow::Result<()> {
    let hex = hash.strip_prefix(PREFIX).unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("--ca-hash {hash:?} is not of the form sha256: and 64 hexadecimal digits");
    }
    Ok(())
}

/// Connects to `host:port` and gives the CA of that hash (DER) which the server showed; `None`:
/// it showed others.
pub async fn fetch(host: &str, port: u16, hash: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let server = format!("{host}:{port}");
    let attempt = async {
        let stream = TcpStream::connect((host, port)).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        connector()?.connect(name, stream).await
    };
    let limit = scaled(CONNECT_TIMEOUT);
    let stream = tokio::time::timeout(limit, attempt)
        .await
        .with_context(|| {
            let seconds = limit.as_secs();
            format!("the API server at {server} does not answer within {seconds} s")
        })?
        .with_context(|| format!("connect to the API server at {server}"))?;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    for certificate in shown {
        if hash_of(certificate)?.eq_ignore_ascii_case(hash) {
            return Ok(Some(certificate.to_vec()));
        }
    }
    Ok(None)
}

fn connector() -> std::io::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(AnyCertificate::new(provider))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_a_form() {
        let good = format!("sha256:{}", "0a".repeat(32));
        check_form(&good).unwrap();
        for bad in [
            "",
            "sha256:",
            &good[7..],
            &good[..70],
            &good.replace('a', "g"),
        ] {
            assert!(check_form(bad).is_err(), "{bad}");
        }
    }
}
