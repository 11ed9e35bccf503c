//! Pod: defaults, validation, what an update may change, and kubectl's columns.

mod defaults;
mod gates;
mod parts;
mod pod_resources;
mod print;
mod qos;
mod update;
mod validate;
mod volumes;

use serde_json::{Value, json};

pub use defaults::default_tolerations;
pub(super) use defaults::{default_pod_template, default_template};
pub use gates::is_gated;
pub use qos::qos_class;
pub(super) use validate::{
    validate_node_selector, validate_resource_list, validate_spec, validate_tolerations,
};

use crate::{
    ObjectExt,
    field::{Errors, Path},
    meta,
    registry::{self, Subresource},
    table::Column,
};

pub(super) struct Strategy;

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        defaults::default_pod(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        let class = qos_class(object);
        object.set_at(&["status"], json!({"phase": "Pending", "qosClass": class}));
        if let Some(condition) = gates::condition(object) {
            object.set_at(&["status", "conditions"], json!([condition]));
        }
        object.set_at(&["metadata", "generation"], Value::from(1));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let status = old.get("status").cloned().unwrap_or(json!({}));
        new.set_at(&["status"], status);
        meta::bump_generation(new, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        validate_spec(spec, &Path::new("spec"), errors);
        // Adding them to a pod counts as a change of its spec.
        let created = object.int_at("/metadata/generation").unwrap_or(0) <= 1;
        if created && !object.list_at("/spec/ephemeralContainers").is_empty() {
            errors.forbidden(
                &Path::new("spec.ephemeralContainers"),
                "cannot be set on create",
            );
        }
        if created {
            gates::validate_new(object, errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        update::validate(new, old, errors);
    }

    fn prepare_part_update(&self, part: Subresource, new: &mut Value, old: &Value) {
        parts::prepare(part, new, old);
        meta::bump_generation(new, old);
    }

    fn validate_part_update(
        &self,
        part: Subresource,
        new: &Value,
        old: &Value,
        errors: &mut Errors,
    ) {
        parts::validate(part, new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        let nominated = new.str_at("/status/nominatedNodeName");
        if !nominated.is_empty() {
            for why in crate::names::subdomain(nominated) {
                errors.invalid(&Path::new("status.nominatedNodeName"), nominated, why);
            }
        }
        let (before, after) = (
            old.str_at("/status/qosClass"),
            new.str_at("/status/qosClass"),
        );
        if !after.is_empty() && !before.is_empty() && before != after {
            errors.invalid(&Path::new("status.qosClass"), after, "field is immutable");
        }
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let status = new.get("status").cloned().unwrap_or(json!({}));
        let metadata = new.get("metadata").cloned().unwrap_or(json!({}));
        *new = old.clone();
        new.set_at(&["metadata"], metadata);
        new.set_at(&["status"], status);
        // The class follows from the spec: a status without it keeps it.
        if new.str_at("/status/qosClass").is_empty() {
            let class = Value::from(qos_class(old));
            new.set_at(&["status", "qosClass"], class);
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn grace_period(&self, object: &Value, asked: Option<i64>) -> i64 {
        let finished = matches!(object.str_at("/status/phase"), "Failed" | "Succeeded");
        // Nothing runs before it is bound, or after it ended.
        if object.str_at("/spec/nodeName").is_empty() || finished {
            return 0;
        }
        let own = object.int_at("/spec/terminationGracePeriodSeconds");
        match asked.or(own).unwrap_or(defaults::TERMINATION_GRACE_SECONDS) {
            // What creates are warned of.
            ..0 => 1,
            seconds => seconds,
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn field_value<'a>(&self, object: &'a Value, field: &str) -> Option<std::borrow::Cow<'a, str>> {
        match field {
            "spec.hostNetwork" => Some(object.bool_at("/spec/hostNetwork").to_string().into()),
            "status.podIPs" => {
                let addresses: Vec<&str> = object
                    .list_at("/status/podIPs")
                    .iter()
                    .map(|address| address.str_at("/ip"))
                    .collect();
                Some(addresses.join(",").into())
            }
            _ => None,
        }
    }

    fn columns(&self) -> &'static [Column] {
        print::COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        print::row(object, now)
    }
}
