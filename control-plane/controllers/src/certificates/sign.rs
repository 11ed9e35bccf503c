//! Signs with the cluster's CA.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::request::{Signer, Wanted};

/// Life of a certificate when the request names none, and the longest there is.
pub const MAX_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of others may be behind by so much.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// The cluster's CA with its key.
#[derive(Clone)]
pub struct SigningCa {
    /// PEM.
    pub certificate: String,
    /// PEM (PKCS #8).
    pub key: String,
    /// Names and addresses of the API server: clients that trust the CA would take a node with
    /// one of them for it.
    pub reserved_names: Vec<String>,
}

impl std::fmt::Debug for SigningCa {
    // The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningCa").finish_non_exhaustive()
    }
}

impl SigningCa {
    /// A certificate as asked for, PEM. Its usages are the signer's, whatever the request's own
    /// extensions say.
    ///
    /// # Errors
    /// When the CA cannot be read or the key's kind is not supported.
    pub(super) fn sign(
        &self,
        signer: Signer,
        mut wanted: Wanted,
        life: Option<Duration>,
        now: Timestamp,
    ) -> Result<String, rcgen::Error> {
        let params = &mut wanted.parsed.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![match signer {
            Signer::Client | Signer::NodeClient => ExtendedKeyUsagePurpose::ClientAuth,
            Signer::NodeServing => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let at = |time: Timestamp| {
            let seconds = u64::try_from(time.as_second()).map_err(|_| rcgen::Error::Time)?;
            Ok::<_, rcgen::Error>(rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds))
        };
        let life = life.unwrap_or(MAX_LIFE).min(MAX_LIFE);
        params.not_before = at(now - BACKDATE)?;
        params.not_after = at(now + life)?;
        let key = KeyPair::from_pem(&self.key)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, key)?;
        Ok(wanted.parsed.signed_by(&issuer)?.pem())
    }
}
