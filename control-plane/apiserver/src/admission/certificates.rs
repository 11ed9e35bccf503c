//! Who may approve and sign certificate requests is decided per signer (Kubernetes' plugins
//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction).

use base64::{Engine, engine::general_purpose::STANDARD};
use hull_api::{ApiError, ObjectExt, kinds::CERTIFICATE_SIGNING_REQUESTS};
use serde_json::Value;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::{authorization::Attributes, handlers::Context};

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

/// A client certificate of `system:masters` could never be taken back.
pub(super) fn check_create(context: &Context<'_>, object: &Value) -> Result<(), ApiError> {
    if context.kind.storage == CERTIFICATE_SIGNING_REQUESTS.storage
        && object.str_at("/spec/signerName") == CLIENT_SIGNER
        && organizations(object).iter().any(|name| name == MASTERS)
    {
        return Err(ApiError::forbidden(
            context.kind.resource(),
            object.name(),
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is \
             not allowed",
        ));
    }
    Ok(())
}

/// None of a request that cannot be read: its signer says so.
fn organizations(object: &Value) -> Vec<String> {
    let read = || {
        let pem = STANDARD.decode(object.str_at("/spec/request")).ok()?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
        let subject = &request.certification_request_info.subject;
        let names = subject.iter_organization();
        let names = names.filter_map(|name| Some(name.as_str().ok()?.to_owned()));
        Some(names.collect::<Vec<_>>())
    };
    read().unwrap_or_default()
}

/// A new decision needs the verb `approve`, a certificate or a failure the verb `sign`, on the
/// signer.
pub(super) fn check_update(
    context: &Context<'_>,
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    if context.kind.storage != CERTIFICATE_SIGNING_REQUESTS.storage {
        return Ok(());
    }
    let decided = ["Approved", "Denied"];
    if conditions(new, &decided) != conditions(old, &decided) {
        require(context, "approve", old)?;
    }
    let certificate = |object: &Value| object.str_at("/status/certificate").to_owned();
    if certificate(new) != certificate(old)
        || conditions(new, &["Failed"]) != conditions(old, &["Failed"])
    {
        require(context, "sign", old)?;
    }
    Ok(())
}

/// Types that are present, of these.
fn conditions<'a>(object: &'a Value, types: &[&str]) -> Vec<&'a str> {
    let mut found: Vec<&str> = object
        .list_at("/status/conditions")
        .iter()
        .map(|condition| condition.str_at("/type"))
        .filter(|kind| types.contains(kind))
        .collect();
    found.sort_unstable();
    found
}

/// The verb on the signer itself, or on all of its domain.
fn require(context: &Context<'_>, verb: &str, request: &Value) -> Result<(), ApiError> {
    let signer = request.str_at("/spec/signerName");
    let whole_domain = signer
        .split_once('/')
        .map(|(domain, _)| format!("{domain}/*"))
        .unwrap_or_default();
    let may = |name: &str| {
        let attributes = Attributes {
            verb,
            group: "certificates.k8s.io",
            resource: "signers",
            name,
            ..Attributes::default()
        };
        let authorizer = &context.backend.authorizer;
        authorizer.authorize(context.user, &attributes).allowed
    };
    if may(signer) || may(&whole_domain) {
        return Ok(());
    }
    Err(ApiError::forbidden(
        context.kind.resource(),
        request.name(),
        &format!("user not permitted to {verb} requests with signerName {signer:?}"),
    ))
}
