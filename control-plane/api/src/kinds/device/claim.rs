//! ResourceClaim and ResourceClaimTemplate.

use serde_json::Value;

use super::request::{default_spec, validate_spec};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    kinds::PLAIN,
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `resource.k8s.io/v1` ResourceClaim.
pub static RESOURCE_CLAIMS: Kind = Kind {
    group: "resource.k8s.io",
    kind: "ResourceClaim",
    plural: "resourceclaims",
    singular: "resourceclaim",
    subresources: &[Subresource::Status],
    schema: "resource.ResourceClaim",
    storage: "resourceclaims",
    strategy: &ClaimStrategy,
    ..PLAIN
};

/// `resource.k8s.io/v1` ResourceClaimTemplate.
pub static RESOURCE_CLAIM_TEMPLATES: Kind = Kind {
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    subresources: &[],
    schema: "resource.ResourceClaimTemplate",
    storage: "resourceclaimtemplates",
    strategy: &TemplateStrategy,
    ..RESOURCE_CLAIMS
};

struct ClaimStrategy;
struct TemplateStrategy;

/// Pods that may share a claim.
const MAX_CONSUMERS: usize = 256;

const CLAIM_COLUMNS: &[Column] = &[
    table::NAME,
    table::column("State", "What became of the claim."),
    table::AGE,
];
const TEMPLATE_COLUMNS: &[Column] = &[table::NAME, table::AGE];

fn state(claim: &Value) -> String {
    let mut words = Vec::new();
    if claim.is_deleting() {
        words.push("deleted");
    }
    if claim.pointer("/status/allocation").is_none() {
        words.push("pending");
    } else {
        words.push("allocated");
    }
    if !claim.list_at("/status/reservedFor").is_empty() {
        words.push("reserved");
    }
    words.join(",")
}

impl registry::Strategy for ClaimStrategy {
    fn apply_defaults(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            default_spec(spec);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        validate_spec(spec, &Path::new("spec"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(&Path::new("spec"), new.get("spec"), old.get("spec"));
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        let status = Path::new("status");
        let consumers = new.list_at("/status/reservedFor");
        let path = status.child("reservedFor");
        if consumers.len() > MAX_CONSUMERS {
            errors.too_many(&path, consumers.len(), MAX_CONSUMERS);
        }
        let allocation = new.pointer("/status/allocation");
        if !consumers.is_empty() && allocation.is_none() {
            errors.forbidden(&path, "may not be specified when `allocated` is not set");
        }
        if let Some(before) = old.pointer("/status/allocation")
            && allocation.is_some_and(|after| after != before)
        {
            errors.invalid(
                &status.child("allocation"),
                allocation.cloned().unwrap_or(Value::Null),
                "field is immutable",
            );
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        CLAIM_COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(state(object)),
            table::age_cell(object, now),
        ]
    }
}

impl registry::Strategy for TemplateStrategy {
    fn apply_defaults(&self, object: &mut Value) {
        if let Some(spec) = object.pointer_mut("/spec/spec") {
            default_spec(spec);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = object.pointer("/spec/spec").unwrap_or(&Value::Null);
        validate_spec(spec, &Path::new("spec.spec"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(&Path::new("spec"), new.get("spec"), old.get("spec"));
    }

    fn columns(&self) -> &'static [Column] {
        TEMPLATE_COLUMNS
    }
}
