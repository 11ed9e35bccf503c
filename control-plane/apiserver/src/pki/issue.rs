//! Issues certificates and keeps them as files.

use std::{
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use hull_tls::{CertificateError, RenewableCertificate};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use super::{CA_YEARS, LEAF_YEARS, PkiError, RENEW_DAYS};

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct CertPair {
    /// The certificate.
    pub cert_pem: String,
    /// The private key (PKCS #8).
    pub key_pem: String,
}

impl CertPair {
    /// What TLS servers and clients show.
    ///
    /// # Errors
    /// When the certificate is not PEM, or the key another one's.
    pub fn renewable(&self) -> Result<RenewableCertificate, CertificateError> {
        RenewableCertificate::from_pem(self.cert_pem.as_bytes(), self.key_pem.as_bytes())
    }
}

impl std::fmt::Debug for CertPair {
    // The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertPair").finish_non_exhaustive()
    }
}

/// What a certificate is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// A client.
    Client,
    /// A server with these names and addresses (a client too: a node agent is both).
    Server(&'a [String]),
}

pub(super) fn create_dir(dir: &Path) -> Result<(), PkiError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| PkiError::File {
            path: dir.to_path_buf(),
            source,
        })
}

fn read(dir: &Path, file: &str) -> Result<Option<String>, PkiError> {
    let path = dir.join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { path, source }),
    }
}

/// Written beside and renamed, so that a crash leaves the old file or the new one.
fn write(dir: &Path, file: &str, text: &str) -> Result<(), PkiError> {
    let path = dir.join(file);
    let temporary = dir.join(format!(".{file}.{}", std::process::id()));
    let attempt = || {
        let mut handle = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        handle.write_all(text.as_bytes())?;
        handle.sync_all()?;
        std::fs::rename(&temporary, &path)
    };
    attempt().map_err(|source| PkiError::File {
        path: path.clone(),
        source,
    })
}

fn load(dir: &Path, name: &str) -> Result<Option<CertPair>, PkiError> {
    let cert = read(dir, &format!("{name}.crt"))?;
    let key = read(dir, &format!("{name}.key"))?;
    Ok(cert
        .zip(key)
        .map(|(cert_pem, key_pem)| CertPair { cert_pem, key_pem }))
}

fn save(dir: &Path, name: &str, pair: &CertPair) -> Result<(), PkiError> {
    // The key first: a certificate without key reads as missing.
    write(dir, &format!("{name}.key"), &pair.key_pem)?;
    write(dir, &format!("{name}.crt"), &pair.cert_pem)
}

fn validity(params: &mut CertificateParams, years: i16) {
    let today = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    // A day of tolerance for clocks that are behind.
    let start = today.yesterday().unwrap_or(today);
    let end = today
        .checked_add(jiff::Span::new().years(years))
        .unwrap_or(jiff::civil::Date::MAX);
    let convert = |date: jiff::civil::Date| {
        rcgen::date_time_ymd(
            i32::from(date.year()),
            u8::try_from(date.month()).unwrap_or(1),
            u8::try_from(date.day()).unwrap_or(1),
        )
    };
    params.not_before = convert(start);
    params.not_after = convert(end);
}

fn subject(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// `name` is the file and what the CA is called after `hull-`.
pub(super) fn load_or_create_ca(dir: &Path, name: &str) -> Result<CertPair, PkiError> {
    let broken = |why: String| PkiError::BrokenCa {
        path: dir.to_path_buf(),
        why,
    };
    let (cert_file, key_file) = (format!("{name}.crt"), format!("{name}.key"));
    match (read(dir, &cert_file)?, read(dir, &key_file)?) {
        (Some(cert_pem), Some(key_pem)) => {
            let pair = CertPair { cert_pem, key_pem };
            issuer(&pair).map_err(|error| broken(error.to_string()))?;
            return Ok(pair);
        }
        // A key alone: a crash before the certificate was written; nothing was signed yet.
        (None, _) => {}
        (Some(_), None) => return Err(broken(format!("{cert_file} is there, {key_file} is not"))),
    }
    let issue = || {
        let mut params = CertificateParams::default();
        // The year keeps the names of successive CAs apart.
        params.distinguished_name = subject(&format!("hull-{name}"), &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        validity(&mut params, CA_YEARS);
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        Ok(CertPair {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    };
    let pair = issue().map_err(|source| PkiError::Issue {
        name: name.to_string(),
        source,
    })?;
    save(dir, name, &pair)?;
    Ok(pair)
}

/// A signing key without certificate, made once.
pub(super) fn load_or_create_key(dir: &Path, name: &str) -> Result<String, PkiError> {
    let file = format!("{name}.key");
    if let Some(pem) = read(dir, &file)? {
        return Ok(pem);
    }
    let key = KeyPair::generate().map_err(|source| PkiError::Issue {
        name: name.to_string(),
        source,
    })?;
    let pem = key.serialize_pem();
    write(dir, &file, &pem)?;
    Ok(pem)
}

fn issuer(ca: &CertPair) -> Result<Issuer<'static, KeyPair>, rcgen::Error> {
    Issuer::from_ca_cert_pem(&ca.cert_pem, KeyPair::from_pem(&ca.key_pem)?)
}

pub(super) fn load_or_issue(
    dir: &Path,
    ca: &CertPair,
    name: &str,
    (common_name, organizations): (&str, &[&str]),
    purpose: Purpose<'_>,
) -> Result<CertPair, PkiError> {
    if let Some(pair) = load(dir, name)?
        && is_current(&pair.cert_pem, &ca.cert_pem, purpose)
    {
        return Ok(pair);
    }
    let issue = || {
        let names = match purpose {
            Purpose::Client => Vec::new(),
            Purpose::Server(names) => names.to_vec(),
        };
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = subject(common_name, organizations);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match purpose {
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Server(_) => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, LEAF_YEARS);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &issuer(ca)?)?;
        Ok(CertPair {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    };
    let pair = issue().map_err(|source| PkiError::Issue {
        name: name.to_string(),
        source,
    })?;
    save(dir, name, &pair)?;
    Ok(pair)
}

/// The certificate was signed by this CA, lives long enough and has the wanted names.
fn is_current(cert_pem: &str, ca_pem: &str, purpose: Purpose<'_>) -> bool {
    let der = |pem: &str| {
        x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .ok()
            .map(|(_, pem)| pem.contents)
    };
    let (Some(cert), Some(ca)) = (der(cert_pem), der(ca_pem)) else {
        return false;
    };
    let (Ok((_, cert)), Ok((_, ca))) = (
        x509_parser::certificate::X509Certificate::from_der(&cert),
        x509_parser::certificate::X509Certificate::from_der(&ca),
    ) else {
        return false;
    };
    let renew_at = jiff::Timestamp::now().as_second() + RENEW_DAYS * 24 * 3600;
    if cert.validity().not_after.timestamp() < renew_at || !signed_by(&cert, &ca) {
        return false;
    }
    let Purpose::Server(wanted) = purpose else {
        return true;
    };
    let Ok(Some(names)) = cert.subject_alternative_name() else {
        return false;
    };
    let present: Vec<String> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_string()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect();
    wanted.iter().all(|name| present.contains(name))
}

fn signed_by(
    cert: &x509_parser::certificate::X509Certificate<'_>,
    ca: &x509_parser::certificate::X509Certificate<'_>,
) -> bool {
    // The CA's key identifier: a new CA of the same name must not pass for the old one.
    let authority =
        cert.extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                _ => None,
            });
    let own = ca
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                Some(id.0.to_vec())
            }
            _ => None,
        });
    authority.is_some() && authority == own
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's certificate, signed by the CA, that lives on for so many days.
    fn client_for(days: i32, ca: &CertPair) -> CertPair {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("somebody", &[]);
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, LEAF_YEARS);
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
        let end = today.date() + jiff::Span::new().days(days);
        params.not_after = rcgen::date_time_ymd(
            i32::from(end.year()),
            u8::try_from(end.month()).unwrap(),
            u8::try_from(end.day()).unwrap(),
        );
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &issuer(ca).unwrap()).unwrap();
        CertPair {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    #[test]
    fn a_certificate_is_issued_again_when_its_end_is_near() {
        let dir = tempfile::tempdir().unwrap();
        let ca = load_or_create_ca(dir.path(), "ca").unwrap();
        let days = i32::try_from(RENEW_DAYS).unwrap();
        for (days, kept) in [(days + 2, true), (days - 1, false), (-1, false)] {
            let old = client_for(days, &ca);
            save(dir.path(), "somebody", &old).unwrap();
            let subject = ("somebody", &[][..]);
            let now = load_or_issue(dir.path(), &ca, "somebody", subject, Purpose::Client).unwrap();
            assert_eq!(now == old, kept, "{days} days");
            assert!(is_current(&now.cert_pem, &ca.cert_pem, Purpose::Client));
        }
    }
}
