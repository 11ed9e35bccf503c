//! What a certificate signing request asks for, read once and checked.

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateSigningRequestParams, DnType, DnValue, IsCa, SanType};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

/// Client certificates for users.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of node agents.
pub const NODE_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// What node agents serve logs and exec with.
pub const NODE_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

const NODE_PREFIX: &str = "system:node:";
pub(super) const NODES_GROUP: &str = "system:nodes";
const SUBJECT_RULE: &str = "the subject must hold one CN, at most one O, and nothing else";
const MASTERS_GROUP: &str = "system:masters";

/// Who signs, of those that this controller answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// [`CLIENT_SIGNER`].
    Client,
    /// [`NODE_CLIENT_SIGNER`].
    NodeClient,
    /// [`NODE_SERVING_SIGNER`].
    NodeServing,
}

impl Signer {
    /// `None`: somebody else's.
    pub fn of(request: &CertificateSigningRequest) -> Option<Self> {
        match request.spec.signer_name.as_str() {
            CLIENT_SIGNER => Some(Signer::Client),
            NODE_CLIENT_SIGNER => Some(Signer::NodeClient),
            NODE_SERVING_SIGNER => Some(Signer::NodeServing),
            _ => None,
        }
    }
}

/// Why a request is not one that its signer signs. Its words go into the request's status.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Not PEM, not PKCS #10, or its signature is wrong.
    #[error("the request cannot be read: {0}")]
    Unreadable(String),
    /// Against the signer's rules.
    #[error("{0}")]
    Rule(String),
}

fn rule(text: impl Into<String>) -> Unfit {
    Unfit::Rule(text.into())
}

/// A request that was read, and whose proof of possession holds.
pub struct Wanted {
    /// What is to be signed.
    pub parsed: CertificateSigningRequestParams,
    /// Common name.
    pub common_name: String,
    /// Organization, which names the group.
    pub organization: Option<String>,
}

/// rcgen keeps one value of each kind and takes an empty set of names for impossible: nothing
/// may be signed that was not looked at, and no request may end the process.
fn check_subject_shape(pem: &str) -> Result<(), Unfit> {
    let unreadable = |error: &dyn std::fmt::Display| Unfit::Unreadable(error.to_string());
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| unreadable(&e))?;
    let (_, request) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|e| unreadable(&e))?;
    let subject = &request.certification_request_info.subject;
    let sets_of_one = subject.iter().all(|set| set.iter().count() == 1);
    let names = subject.iter_common_name().count();
    let organizations = subject.iter_organization().count();
    if !sets_of_one || names != 1 || organizations > 1 {
        return Err(rule(SUBJECT_RULE));
    }
    Ok(())
}

fn text(value: &DnValue) -> Option<String> {
    match value {
        DnValue::Utf8String(text) => Some(text.clone()),
        DnValue::PrintableString(text) => Some(text.as_str().to_owned()),
        DnValue::Ia5String(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

impl Wanted {
    /// Reads the request.
    pub fn read(request: &CertificateSigningRequest) -> Result<Self, Unfit> {
        let unreadable = |error: &dyn std::fmt::Display| Unfit::Unreadable(error.to_string());
        let pem = std::str::from_utf8(&request.spec.request.0).map_err(|e| unreadable(&e))?;
        check_subject_shape(pem)?;
        let parsed =
            CertificateSigningRequestParams::from_pem(pem).map_err(|error| unreadable(&error))?;
        let (mut common_name, mut organization) = (None, None);
        for (kind, value) in parsed.params.distinguished_name.iter() {
            let value = text(value).ok_or_else(|| rule("a name is not text"))?;
            match kind {
                DnType::CommonName => common_name = Some(value),
                DnType::OrganizationName => organization = Some(value),
                _ => return Err(rule(SUBJECT_RULE)),
            }
        }
        if !matches!(parsed.params.is_ca, IsCa::NoCa | IsCa::ExplicitNoCa) {
            return Err(rule("the request is for a CA"));
        }
        Ok(Wanted {
            common_name: common_name.ok_or_else(|| rule("the subject has no common name"))?,
            organization,
            parsed,
        })
    }

    /// The node's name, of a subject that is a node agent's.
    pub fn node(&self) -> Option<&str> {
        if self.organization.as_deref() != Some(NODES_GROUP) {
            return None;
        }
        let name = self.common_name.strip_prefix(NODE_PREFIX)?;
        (!name.is_empty()).then_some(name)
    }

    /// Host names of a server.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.parsed
            .params
            .subject_alt_names
            .iter()
            .filter_map(|name| match name {
                SanType::DnsName(name) => Some(name.as_str()),
                _ => None,
            })
    }

    /// Addresses of a server.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.parsed
            .params
            .subject_alt_names
            .iter()
            .filter_map(|name| match name {
                SanType::IpAddress(address) => Some(*address),
                _ => None,
            })
    }

    /// Checks the rules of the signer: subject, names and usages. No server gets one of the
    /// reserved names.
    pub fn check(
        &self,
        signer: Signer,
        usages: &[String],
        reserved: &[String],
    ) -> Result<(), Unfit> {
        let addresses = self.addresses().map(|address| address.to_string());
        let asked = self.dns_names().map(str::to_ascii_lowercase);
        if let Some(name) = asked.chain(addresses).find(|name| {
            let name = name.trim_end_matches('.');
            reserved
                .iter()
                .any(|other| other.eq_ignore_ascii_case(name))
                || name.contains('*')
        }) {
            return Err(rule(format!(
                "the name {name:?} is the API server's or a pattern"
            )));
        }
        let names = self.parsed.params.subject_alt_names.len();
        let readable = self.dns_names().count() + self.addresses().count();
        if names != readable {
            return Err(rule("only DNS names and IP addresses may be asked for"));
        }
        let (needed, what) = match signer {
            Signer::Client => ("client auth", "a client"),
            Signer::NodeClient => ("client auth", "a node's client"),
            Signer::NodeServing => ("server auth", "a node's server"),
        };
        let allowed = ["key encipherment", "digital signature", needed];
        if let Some(usage) = usages
            .iter()
            .find(|usage| !allowed.contains(&usage.as_str()))
        {
            return Err(rule(format!("{what} may not have the usage {usage:?}")));
        }
        if !usages.iter().any(|usage| usage == needed) {
            return Err(rule(format!("{what} needs the usage {needed:?}")));
        }
        match signer {
            Signer::Client if self.organization.as_deref() == Some(MASTERS_GROUP) => {
                Err(rule("the group system:masters cannot be asked for"))
            }
            Signer::Client => Ok(()),
            _ if self.node().is_none() => Err(rule(
                "the subject must be CN=system:node:NAME, O=system:nodes",
            )),
            Signer::NodeClient if names > 0 => {
                Err(rule("a node's client has no names besides its subject"))
            }
            Signer::NodeServing if names == 0 => {
                Err(rule("a node's server needs a DNS name or an IP address"))
            }
            _ => Ok(()),
        }
    }
}
