//! CertificateSigningRequest. Who asked, and with what rights, is written by the API server.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names::{self, NameRule},
    registry::{self, Kind, Subresource},
    table::{self, Column},
    time,
};

/// `certificates.k8s.io/v1` CertificateSigningRequest.
pub static CERTIFICATE_SIGNING_REQUESTS: Kind = Kind {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    namespaced: false,
    subresources: &[Subresource::Approval, Subresource::Status],
    schema: "certificates.CertificateSigningRequest",
    storage: "certificatesigningrequests",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

/// Shortest life of a certificate that may be asked for, in seconds.
const MIN_EXPIRATION_SECONDS: i64 = 600;
/// Longest name of a signer, bytes: a subdomain, a slash, a subdomain with a label before it.
const MAX_SIGNER_BYTES: usize = 571;
/// Of the version before, which signed by who asked.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// Decisions, which only the approval subresource may change.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::AGE,
    table::column("SignerName", "Who is asked to sign."),
    table::column("Requestor", "Who asks."),
    table::column("RequestedDuration", "How long the certificate shall last."),
    table::column("Condition", "What became of the request."),
];

/// Fields that say who asks.
const REQUESTOR: [&str; 4] = ["extra", "groups", "uid", "username"];

/// Writes who asks into a new request.
pub fn set_requestor(request: &mut Value, user: &str, uid: &str, groups: &[String], extra: Value) {
    request.set_at(&["spec", "username"], Value::from(user));
    if !uid.is_empty() {
        request.set_at(&["spec", "uid"], Value::from(uid));
    }
    request.set_at(&["spec", "groups"], Value::from(groups));
    if extra.as_object().is_some_and(|extra| !extra.is_empty()) {
        request.set_at(&["spec", "extra"], extra);
    }
}

fn decisions(object: &Value) -> Vec<&Value> {
    object
        .list_at("/status/conditions")
        .iter()
        .filter(|condition| DECISIONS.contains(&condition.str_at("/type")))
        .collect()
}

impl registry::Strategy for Strategy {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        validate_request(
            object.str_at("/spec/request"),
            &spec.child("request"),
            errors,
        );
        let usages = object.list_at("/spec/usages");
        if usages.is_empty() {
            errors.required(&spec.child("usages"), "");
        }
        for (index, usage) in usages.iter().enumerate() {
            let path = spec.child("usages").index(index);
            if usages[..index].contains(usage) {
                errors.duplicate(&path, usage.clone());
            }
            errors.check_supported(&path, usage.as_str().unwrap_or(""), USAGES);
        }
        let signer = object.str_at("/spec/signerName");
        validate_signer(signer, &spec.child("signerName"), errors);
        if let Some(seconds) = object.int_at("/spec/expirationSeconds")
            && seconds < MIN_EXPIRATION_SECONDS
        {
            errors.invalid(
                &spec.child("expirationSeconds"),
                seconds,
                "may not specify a duration less than 600 seconds (10 minutes)",
            );
        }
    }

    /// Nobody says for himself who he is: the API server writes it afterwards
    /// ([`set_requestor`]).
    fn prepare_create(&self, object: &mut Value) {
        for field in REQUESTOR {
            object.remove_at(&["spec", field]);
        }
        object.set_at(&["status"], Value::Object(serde_json::Map::new()));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        for part in ["spec", "status"] {
            let kept = old.get(part).cloned().unwrap_or_default();
            new.set_at(&[part], kept);
        }
    }

    /// The decision is not part of the status as the signer writes it.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let status = new.get("status").cloned().unwrap_or_default();
        let metadata = new.get("metadata").cloned().unwrap_or_default();
        *new = old.clone();
        new.set_at(&["metadata"], metadata);
        new.set_at(&["status"], status);
        let mut conditions: Vec<Value> = new
            .list_at("/status/conditions")
            .iter()
            .filter(|condition| !DECISIONS.contains(&condition.str_at("/type")))
            .cloned()
            .collect();
        conditions.extend(decisions(old).into_iter().cloned());
        stamp(&mut conditions, old);
        new.set_at(&["status", "conditions"], Value::Array(conditions));
    }

    /// Approval changes the conditions, and nothing else.
    fn prepare_part_update(&self, _part: Subresource, new: &mut Value, old: &Value) {
        let mut conditions = new.list_at("/status/conditions").to_vec();
        *new = old.clone();
        stamp(&mut conditions, old);
        new.set_at(&["status", "conditions"], Value::Array(conditions));
    }

    fn validate_part_update(
        &self,
        _part: Subresource,
        new: &Value,
        old: &Value,
        errors: &mut Errors,
    ) {
        validate_conditions(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        let before = old.str_at("/status/certificate");
        let after = new.str_at("/status/certificate");
        if !before.is_empty() && before != after {
            errors.invalid(
                &Path::new("status.certificate"),
                "<certificate data>",
                "updates may not replace existing certificate",
            );
        }
        if after != before {
            validate_certificate(after, errors);
        }
        validate_conditions(new, old, errors);
    }

    fn has_status(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let duration = match object.int_at("/spec/expirationSeconds") {
            Some(seconds) => time::human_duration(seconds),
            None => "<none>".to_string(),
        };
        vec![
            Value::from(object.name()),
            table::age_cell(object, now),
            Value::from(object.str_at("/spec/signerName")),
            Value::from(object.str_at("/spec/username")),
            Value::from(duration),
            Value::from(condition_cell(object)),
        ]
    }
}

/// `example.com/signer-name`.
fn validate_signer(signer: &str, path: &Path, errors: &mut Errors) {
    if signer == LEGACY_SIGNER {
        let why = "the legacy signerName is not allowed via this API version";
        return errors.invalid(path, signer, why);
    }
    let (domain, name) = match signer.split_once('/') {
        _ if signer.is_empty() => return errors.required(path, ""),
        Some((domain, name)) if !name.contains('/') => (domain, name),
        _ => {
            let why =
                "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            return errors.invalid(path, signer, why);
        }
    };
    if domain.len() > names::SUBDOMAIN_MAX {
        errors.too_long(path, names::SUBDOMAIN_MAX);
    }
    for label in domain.split('.') {
        for why in names::label(label) {
            errors.invalid(path, domain, format!("validating label {label:?}: {why}"));
        }
    }
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.invalid(path, domain, why);
    }
    for label in name.split('.') {
        for why in names::subdomain(label) {
            errors.invalid(path, name, format!("validating label {label:?}: {why}"));
        }
    }
    if signer.len() > MAX_SIGNER_BYTES {
        errors.too_long(path, MAX_SIGNER_BYTES);
    }
}

/// PEM of certificates and nothing else. Whether they are certificates is their signer's affair.
fn validate_certificate(certificate: &str, errors: &mut Errors) {
    let text = STANDARD.decode(certificate).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let kinds = text.lines().filter_map(|line| {
        let line = line.strip_prefix("-----BEGIN ")?;
        line.trim_end().strip_suffix("-----")
    });
    let mut blocks = 0;
    let mut refuse = |why: String| {
        let path = Path::new("status.certificate");
        errors.invalid(&path, "<certificate data>", why);
    };
    for kind in kinds {
        blocks += 1;
        if kind != "CERTIFICATE" {
            return refuse(format!(
                "only CERTIFICATE PEM blocks are allowed, found {kind:?}"
            ));
        }
    }
    if blocks == 0 && !certificate.is_empty() {
        refuse("must contain at least one CERTIFICATE PEM block".to_owned());
    }
}

fn condition_cell(object: &Value) -> String {
    let has = |wanted: &str| {
        object
            .list_at("/status/conditions")
            .iter()
            .any(|condition| condition.str_at("/type") == wanted)
    };
    let mut words = Vec::new();
    if has("Denied") {
        words.push("Denied");
    } else if has("Approved") {
        words.push("Approved");
    } else {
        words.push("Pending");
    }
    if has("Failed") {
        words.push("Failed");
    }
    if !object.str_at("/status/certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

/// Times that the writer leaves out.
fn stamp(conditions: &mut [Value], old: &Value) {
    let now = Value::from(time::to_seconds(jiff::Timestamp::now()));
    for condition in conditions {
        let before = old
            .list_at("/status/conditions")
            .iter()
            .find(|other| other.get("type") == condition.get("type"));
        if condition.get("lastUpdateTime").is_none() {
            condition.set_at(&["lastUpdateTime"], now.clone());
        }
        if condition.get("lastTransitionTime").is_none() {
            let kept = before.and_then(|before| before.get("lastTransitionTime").cloned());
            condition.set_at(&["lastTransitionTime"], kept.unwrap_or_else(|| now.clone()));
        }
    }
}

fn validate_conditions(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("status.conditions");
    let mut seen: Vec<&str> = Vec::new();
    for (index, condition) in new.list_at("/status/conditions").iter().enumerate() {
        let path = path.index(index);
        let condition_type = condition.str_at("/type");
        if condition_type.is_empty() {
            errors.required(&path.child("type"), "");
        } else if seen.contains(&condition_type) {
            errors.duplicate(&path.child("type"), condition_type);
        }
        seen.push(condition_type);
        let status = condition.str_at("/status");
        let final_word = DECISIONS.contains(&condition_type) || condition_type == "Failed";
        if status.is_empty() {
            errors.required(&path.child("status"), "");
        } else if final_word && status != "True" {
            errors.not_supported(&path.child("status"), status, &["True"]);
        } else {
            errors.check_supported(&path.child("status"), status, &["False", "True", "Unknown"]);
        }
    }
    if seen.contains(&"Approved") && seen.contains(&"Denied") {
        errors.invalid(
            &path,
            "Denied",
            "Approved and Denied conditions are mutually exclusive",
        );
    }
    for decision in decisions(old) {
        if !decisions(new)
            .iter()
            .any(|kept| kept.get("type") == decision.get("type"))
        {
            errors.forbidden(
                &path,
                format!(
                    "updates may not remove a condition of type {:?}",
                    decision.str_at("/type")
                ),
            );
        }
    }
}

/// PEM of the right kind. The API server reads what is in it.
fn validate_request(request: &str, path: &Path, errors: &mut Errors) {
    const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
    let pem = STANDARD
        .decode(request)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    if pem.is_none_or(|text| !text.contains(BEGIN)) {
        errors.invalid(path, request, "PEM block type must be CERTIFICATE REQUEST");
    }
}
