//! CSIDriver.

use serde_json::{Value, json};

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::{default_text, default_to},
    registry::{self, Kind},
    table::{self, Column},
};

/// `storage.k8s.io/v1` CSIDriver.
pub static CSI_DRIVERS: Kind = Kind {
    group: "storage.k8s.io",
    kind: "CSIDriver",
    plural: "csidrivers",
    singular: "csidriver",
    namespaced: false,
    schema: "storage.CSIDriver",
    storage: "csidrivers",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const MAX_NAME: usize = 63;
/// Shortest life of a token for a driver, in seconds.
const MIN_TOKEN_SECONDS: i64 = 600;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "AttachRequired",
        "Volumes are attached before they are mounted.",
    ),
    table::column("PodInfoOnMount", "The driver is told about the pod."),
    table::column("StorageCapacity", "The driver publishes how much is free."),
    table::column("TokenRequests", "Audiences of the tokens that it gets."),
    table::column(
        "RequiresRepublish",
        "Volumes are published again and again.",
    ),
    table::column("Modes", "Kinds of volumes."),
    table::AGE,
];

/// Names of drivers are domains; letters of both cases are allowed.
pub(super) fn check_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > MAX_NAME {
        errors.too_long(path, MAX_NAME);
    }
    for why in names::subdomain(&name.to_lowercase()) {
        errors.invalid(path, name, why);
    }
}

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let spec = object.map_mut(&["spec"]);
        default_to(spec, "attachRequired", true);
        default_to(spec, "podInfoOnMount", false);
        default_to(spec, "storageCapacity", false);
        default_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        default_to(spec, "volumeLifecycleModes", json!(["Persistent"]));
        default_to(spec, "requiresRepublish", false);
        default_to(spec, "seLinuxMount", false);
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_name(object.name(), &Path::new("metadata.name"), errors);
        let spec = Path::new("spec");
        errors.check_supported(
            &spec.child("fsGroupPolicy"),
            object.str_at("/spec/fsGroupPolicy"),
            &["File", "None", "ReadWriteOnceWithFSType"],
        );
        for mode in object.list_at("/spec/volumeLifecycleModes") {
            errors.check_supported(
                &spec.child("volumeLifecycleModes"),
                mode.as_str().unwrap_or(""),
                &["Ephemeral", "Persistent"],
            );
        }
        let mut seen = Vec::new();
        for (index, request) in object.list_at("/spec/tokenRequests").iter().enumerate() {
            let path = spec.child("tokenRequests").index(index);
            let audience = request.str_at("/audience");
            if seen.contains(&audience) {
                errors.duplicate(&path.child("audience"), audience);
            }
            seen.push(audience);
            if let Some(seconds) = request.int_at("/expirationSeconds")
                && seconds < MIN_TOKEN_SECONDS
            {
                errors.invalid(
                    &path.child("expirationSeconds"),
                    seconds,
                    "may not specify a duration less than 10 minutes",
                );
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        for field in ["attachRequired", "volumeLifecycleModes"] {
            let pointer = format!("/spec/{field}");
            errors.check_immutable(
                &Path::new("spec").child(field),
                new.pointer(&pointer),
                old.pointer(&pointer),
            );
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let join = |pointer: &str, field: &str| {
            let parts: Vec<&str> = object
                .list_at(pointer)
                .iter()
                .map(|item| item.str_at(field))
                .collect();
            parts.join(",")
        };
        vec![
            Value::from(object.name()),
            Value::from(object.bool_at("/spec/attachRequired")),
            Value::from(object.bool_at("/spec/podInfoOnMount")),
            Value::from(object.bool_at("/spec/storageCapacity")),
            table::text_or(&join("/spec/tokenRequests", "/audience"), "<unset>"),
            Value::from(object.bool_at("/spec/requiresRepublish")),
            table::text_or(&join("/spec/volumeLifecycleModes", ""), "<none>"),
            table::age_cell(object, now),
        ]
    }
}
