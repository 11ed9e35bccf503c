//! What an update of a pod may change.

use serde_json::Value;

use super::gates;
use crate::{
    ObjectExt,
    field::{Errors, Path},
};

const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let mut counts_equal = true;
    for list in ["containers", "initContainers"] {
        let pointer = format!("/spec/{list}");
        let count = new.list_at(&pointer).len();
        if count != old.list_at(&pointer).len() {
            counts_equal = false;
            errors.forbidden(
                &spec.child(list),
                "pod updates may not add or remove containers",
            );
        }
    }
    if !counts_equal {
        return;
    }
    validate_deadline(new, old, &spec, errors);
    validate_tolerations(new, old, &spec, errors);
    gates::validate_update(new, old, errors);
    if gates::is_gated(old) {
        gates::validate_placement(new, old, errors);
    }
    let allowed = allow_changes(new, old);
    let (Some(new_spec), Some(old_spec)) = (allowed.get("spec"), old.get("spec")) else {
        return;
    };
    if new_spec != old_spec {
        let changed = difference(new_spec, old_spec);
        errors.forbidden(&spec, format!("{RULE}\n{changed}"));
    }
}

fn validate_deadline(new: &Value, old: &Value, spec: &Path, errors: &mut Errors) {
    let pointer = "/spec/activeDeadlineSeconds";
    let path = spec.child("activeDeadlineSeconds");
    match (old.int_at(pointer), new.int_at(pointer)) {
        (Some(before), Some(after)) if after > before => errors.invalid(
            &path,
            after,
            format!("must be less than or equal to previous value {before}"),
        ),
        (Some(_), None) => errors.invalid(
            &path,
            Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
}

fn validate_tolerations(new: &Value, old: &Value, spec: &Path, errors: &mut Errors) {
    let without_time = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.remove_at(&["tolerationSeconds"]);
        toleration
    };
    let kept = new.list_at("/spec/tolerations");
    for toleration in old.list_at("/spec/tolerations") {
        let stays = kept
            .iter()
            .any(|other| without_time(other) == without_time(toleration));
        if !stays {
            errors.forbidden(
                &spec.child("tolerations"),
                "existing toleration can not be modified except its tolerationSeconds",
            );
        }
    }
}

/// The new pod with everything that may change as it was.
fn allow_changes(new: &Value, old: &Value) -> Value {
    let mut allowed = new.clone();
    for list in ["containers", "initContainers"] {
        for index in 0..new.list_at(&format!("/spec/{list}")).len() {
            let pointer = format!("/spec/{list}/{index}");
            let before = old.pointer(&pointer).and_then(|c| c.get("image")).cloned();
            if let (Some(Value::Object(container)), Some(image)) =
                (allowed.pointer_mut(&pointer), before)
            {
                container.insert("image".to_string(), image);
            }
        }
    }
    let mut kept = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    let grace = "/spec/terminationGracePeriodSeconds";
    if old.int_at(grace).is_some_and(|s| s < 0) && new.int_at(grace) == Some(1) {
        kept.push("terminationGracePeriodSeconds");
    }
    for field in kept {
        gates::keep(&mut allowed, old, &["spec", field]);
    }
    if gates::is_gated(old) {
        gates::keep_placement(&mut allowed, old);
    }
    allowed
}

/// The fields that differ, one a line.
fn difference(new: &Value, old: &Value) -> String {
    let (Value::Object(new), Value::Object(old)) = (new, old) else {
        return String::new();
    };
    let mut keys: Vec<&String> = new.keys().chain(old.keys()).collect();
    keys.sort();
    keys.dedup();
    let lines: Vec<String> = keys
        .into_iter()
        .filter(|key| new.get(*key) != old.get(*key))
        .map(|key| {
            let show = |value: Option<&Value>| value.map_or("<none>".to_string(), Value::to_string);
            format!("  {key}: {} -> {}", show(old.get(key)), show(new.get(key)))
        })
        .collect();
    lines.join("\n")
}
