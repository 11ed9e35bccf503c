//! Ephemeral containers: added to a running pod, never changed or removed.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{Surroundings, container::validate_container};
use crate::{
    ObjectExt,
    field::{Errors, Path},
};

/// What an ephemeral container cannot have.
const NOT_ALLOWED: [&str; 7] = [
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "startupProbe",
];

/// Checks the ephemeral containers of `new`, those of `old` being there already.
pub(in crate::kinds::pod) fn validate_ephemeral(new: &Value, old: &Value, errors: &mut Errors) {
    let list = Path::new("spec.ephemeralContainers");
    let (before, after) = (
        old.list_at("/spec/ephemeralContainers"),
        new.list_at("/spec/ephemeralContainers"),
    );
    // Of two with one name the first.
    let kept: HashMap<&str, &Value> = after
        .iter()
        .rev()
        .map(|container| (container.str_at("/name"), container))
        .collect();
    for container in before {
        let name = container.str_at("/name");
        match kept.get(name) {
            None => errors.forbidden(
                &list,
                format!("existing ephemeral containers {name:?} may not be removed\n"),
            ),
            Some(other) if *other != container => errors.forbidden(
                &list,
                format!("existing ephemeral containers {name:?} may not be changed\n"),
            ),
            Some(_) => {}
        }
    }
    let none = Value::Null;
    let around = Surroundings::of(new.get("spec").unwrap_or(&none));
    let mut names: HashSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| new.list_at(&format!("/spec/{list}")))
        .map(|container| container.str_at("/name"))
        .collect();
    for (index, container) in after.iter().enumerate() {
        let path = list.index(index);
        let name = container.str_at("/name");
        if names.contains(name) {
            errors.duplicate(&path.child("name"), name);
        }
        let target = container.str_at("/targetContainerName");
        if !target.is_empty() && !names.contains(target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        for field in NOT_ALLOWED {
            let given = match container.get(field) {
                None => false,
                Some(Value::Object(map)) => !map.is_empty(),
                Some(Value::Array(list)) => !list.is_empty(),
                Some(_) => true,
            };
            if given {
                errors.forbidden(
                    &path.child(field),
                    "cannot be set for an Ephemeral Container",
                );
            }
        }
        for (at, mount) in container.list_at("/volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.str_at(&format!("/{field}")).is_empty() {
                    errors.forbidden(
                        &path.child("volumeMounts").index(at).child(field),
                        "cannot be set for an Ephemeral Container",
                    );
                }
            }
        }
        validate_container(container, &around, &path, errors);
        names.insert(name);
    }
}
