//! Who may approve and sign certificate requests is decided per signer (Kubernetes' plugins
//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction).

use base64::{Engine, engine::general_purpose::STANDARD};
use hull_api::{
    ApiError, ObjectExt,
    field::{Errors, Path},
    kinds::CERTIFICATE_SIGNING_REQUESTS,
};
use serde_json::Value;
use x509_parser::{
    certification_request::X509CertificationRequest, error::X509Error, pem::Pem, prelude::FromDer,
};

use crate::{authorization::Attributes, handlers::Context};

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

/// What is asked for can be read and is asked by who has the key; and a client certificate of
/// `system:masters` could never be taken back.
pub(super) fn check_create(context: &Context<'_>, object: &Value) -> Result<(), ApiError> {
    if context.kind.storage != CERTIFICATE_SIGNING_REQUESTS.storage {
        return Ok(());
    }
    let organizations = organizations(object).map_err(|why| {
        let mut errors = Errors::default();
        let request = object.str_at("/spec/request");
        errors.invalid(&Path::new("spec.request"), request, why);
        let kind = context.kind;
        ApiError::invalid(kind.group, kind.kind, object.name(), errors.into_vec())
    })?;
    if object.str_at("/spec/signerName") == CLIENT_SIGNER
        && organizations.iter().any(|name| name == MASTERS)
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

/// The organizations that are asked for, or what is wrong with the request. None of what is no
/// PEM of a request: the rules of the kind say so.
fn organizations(object: &Value) -> Result<Vec<String>, String> {
    let pem = STANDARD.decode(object.str_at("/spec/request"));
    let pem = pem.unwrap_or_default();
    let block = x509_parser::pem::parse_x509_pem(&pem);
    let Some(block) = block.ok().map(|(_, block)| block).filter(is_request) else {
        return Ok(Vec::new());
    };
    let (rest, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|error| format!("asn1: structure error: {error}"))?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".to_owned());
    }
    // Not every algorithm of signatures is known here; the signer decides about others.
    if request.verify_signature() == Err(X509Error::SignatureVerificationError) {
        let algorithm = request.signature_algorithm.algorithm.to_id_string();
        return Err(wrong_signature(&algorithm).to_owned());
    }
    let subject = &request.certification_request_info.subject;
    let names = subject.iter_organization();
    let names = names.filter_map(|name| Some(name.as_str().ok()?.to_owned()));
    Ok(names.collect())
}

fn is_request(block: &Pem) -> bool {
    block.label == "CERTIFICATE REQUEST"
}

/// In Go's words, by the algorithm's object identifier (RFC 5758 §3.2, RFC 8410 §3).
fn wrong_signature(algorithm: &str) -> &'static str {
    if algorithm.starts_with("1.2.840.10045.4.") {
        "x509: ECDSA verification failure"
    } else if algorithm == "1.3.101.112" {
        "x509: Ed25519 verification failure"
    } else {
        "crypto/rsa: verification error"
    }
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
