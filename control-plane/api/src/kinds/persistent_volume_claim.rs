//! PersistentVolumeClaim.

use serde_json::{Map, Value, json};

use super::{PLAIN, pod};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::default_text,
    quantity::Quantity,
    registry::{self, Kind, Subresource},
    selector::label,
    table::{self, Column},
};

/// `v1` PersistentVolumeClaim.
pub static PERSISTENT_VOLUME_CLAIMS: Kind = Kind {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    subresources: &[Subresource::Status],
    schema: "core.PersistentVolumeClaim",
    storage: "persistentvolumeclaims",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

pub(super) const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const IMMUTABLE: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Status", "Pending, Bound or Lost."),
    table::column("Volume", "The volume that it is bound to."),
    table::column("Capacity", "The size of that volume."),
    table::column("Access Modes", "How the volume can be mounted."),
    table::column("StorageClass", "What kind of storage it asks for."),
    table::column("VolumeAttributesClass", "The attributes of the volume."),
    table::AGE,
    table::wide("VolumeMode", "Filesystem or Block."),
];

/// Defaults of a claim's spec, also within a StatefulSet or a pod.
pub(super) fn default_spec(spec: &mut Map<String, Value>) {
    default_text(spec, "volumeMode", "Filesystem");
}

/// `RWO,ROX` for a cell.
pub(super) fn access_modes(modes: &[Value]) -> String {
    let short: Vec<&str> = modes
        .iter()
        .map(|mode| match mode.as_str().unwrap_or("") {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        })
        .collect();
    short.join(",")
}

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        default_spec(object.map_mut(&["spec"]));
        // The older and the newer name of one thing.
        let spec = object.map_mut(&["spec"]);
        let (source, reference) = (
            spec.get("dataSource").cloned(),
            spec.get("dataSourceRef").cloned(),
        );
        match (source, reference) {
            (Some(source), None) => {
                spec.insert("dataSourceRef".to_string(), source);
            }
            (None, Some(reference)) if reference.get("namespace").is_none() => {
                spec.insert("dataSource".to_string(), reference);
            }
            _ => {}
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["status"], json!({"phase": "Pending"}));
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        validate_spec(spec, &Path::new("spec"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        validate_update(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut Errors) {
        pod::validate_resource_list(
            new.map_at("/status/capacity"),
            &Path::new("status.capacity"),
            errors,
        );
    }

    fn has_status(&self) -> bool {
        true
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let phase = if object.is_deleting() {
            "Terminating"
        } else {
            object.str_at("/status/phase")
        };
        let volume = object.str_at("/spec/volumeName");
        let (capacity, modes) = if volume.is_empty() {
            ("", String::new())
        } else {
            (
                object.str_at("/status/capacity/storage"),
                access_modes(object.list_at("/status/accessModes")),
            )
        };
        vec![
            Value::from(object.name()),
            Value::from(phase),
            Value::from(volume),
            Value::from(capacity),
            Value::from(modes),
            Value::from(object.str_at("/spec/storageClassName")),
            table::text_or(object.str_at("/spec/volumeAttributesClassName"), "<unset>"),
            table::age_cell(object, now),
            table::text_or(object.str_at("/spec/volumeMode"), "<unset>"),
        ]
    }
}

/// Rules of a claim's spec, also within a StatefulSet or a pod.
pub(super) fn validate_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    validate_access_modes(
        spec.list_at("/accessModes"),
        &path.child("accessModes"),
        errors,
    );
    label::validate_object(spec.get("selector"), &path.child("selector"), errors);
    let resources = path.child("resources");
    match spec.pointer("/resources/requests/storage") {
        None => errors.required(&resources.child("storage"), ""),
        Some(amount) => {
            let path = resources.child("requests").key("storage");
            check_positive(amount, &path, errors);
        }
    }
    for field in ["storageClassName", "volumeAttributesClassName"] {
        let name = spec.str_at(&format!("/{field}"));
        if !name.is_empty() {
            for why in names::subdomain(name) {
                errors.invalid(&path.child(field), name, why);
            }
        }
    }
    let mode = spec.str_at("/volumeMode");
    if !mode.is_empty() {
        errors.check_supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    for field in ["dataSource", "dataSourceRef"] {
        let Some(source) = spec.get(field) else {
            continue;
        };
        let path = path.child(field);
        for part in ["name", "kind"] {
            if source.str_at(&format!("/{part}")).is_empty() {
                errors.required(&path.child(part), "");
            }
        }
        let core = source.str_at("/apiGroup").is_empty();
        if core && source.str_at("/kind") != "PersistentVolumeClaim" {
            errors.invalid(
                &path,
                source.str_at("/kind"),
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            );
        }
    }
}

/// How a volume can be mounted: at least one way, known ones only.
pub(super) fn validate_access_modes(modes: &[Value], path: &Path, errors: &mut Errors) {
    if modes.is_empty() {
        errors.required(path, "at least 1 access mode is required");
    }
    for mode in modes {
        errors.check_supported(path, mode.as_str().unwrap_or(""), ACCESS_MODES);
    }
    let once = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    if once && modes.len() > 1 {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// An amount of storage: more than nothing.
pub(super) fn check_positive(amount: &Value, path: &Path, errors: &mut Errors) {
    let text = amount.as_str().unwrap_or("");
    let positive = text
        .parse::<Quantity>()
        .is_ok_and(|amount| amount > Quantity::from_units(0));
    if !positive {
        errors.invalid(path, text, "must be greater than zero");
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let bound = old.str_at("/status/phase") == "Bound";
    let fixed = |object: &Value| {
        let mut spec = object.get("spec").cloned().unwrap_or_default();
        // The binder sets the volume, once; a default class may come late.
        if old.str_at("/spec/volumeName").is_empty() {
            spec.remove_at(&["volumeName"]);
        }
        if old.pointer("/spec/storageClassName").is_none() {
            spec.remove_at(&["storageClassName"]);
        }
        spec.remove_at(&["volumeAttributesClassName"]);
        if bound {
            spec.remove_at(&["resources", "requests"]);
        }
        spec
    };
    if fixed(new) != fixed(old) {
        errors.forbidden(&Path::new("spec"), IMMUTABLE);
        return;
    }
    let amount = |object: &Value, pointer: &str| {
        object
            .str_at(pointer)
            .parse::<Quantity>()
            .unwrap_or(Quantity::from_units(0))
    };
    let (wanted, before) = (
        amount(new, "/spec/resources/requests/storage"),
        amount(old, "/spec/resources/requests/storage"),
    );
    if wanted < before && wanted <= amount(old, "/status/capacity/storage") {
        errors.forbidden(
            &Path::new("spec.resources.requests.storage"),
            "field can not be less than status.capacity",
        );
    }
}
