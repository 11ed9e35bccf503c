//! Environment variables and mounts of containers.

use serde_json::{Map, Value};

use crate::{
    ObjectExt,
    field::{Errors, Path},
    kinds::pod::volumes,
    names,
};

pub(super) fn validate_env(container: &Value, path: &Path, errors: &mut Errors) {
    for (index, variable) in container.list_at("/env").iter().enumerate() {
        let path = path.child("env").index(index);
        let name = variable.str_at("/name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            for why in names::env_name(name) {
                errors.invalid(&path.child("name"), name, why);
            }
        }
        let Some(source) = variable.get("valueFrom") else {
            continue;
        };
        let path = path.child("valueFrom");
        let count = source.as_object().map_or(0, Map::len);
        if !variable.str_at("/value").is_empty() && count > 0 {
            errors.invalid(&path, "", "may not be specified when `value` is not empty");
        } else if count == 0 {
            errors.invalid(&path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`");
        } else if count > 1 {
            errors.invalid(
                &path,
                "",
                "may not have more than one field specified at a time",
            );
        }
        for reference in ["configMapKeyRef", "secretKeyRef"] {
            if source.get(reference).is_some()
                && source.str_at(&format!("/{reference}/key")).is_empty()
            {
                errors.required(&path.child(reference).child("key"), "");
            }
        }
        if source.get("fieldRef").is_some() && source.str_at("/fieldRef/fieldPath").is_empty() {
            errors.required(&path.child("fieldRef").child("fieldPath"), "");
        }
    }
    for (index, source) in container.list_at("/envFrom").iter().enumerate() {
        let path = path.child("envFrom").index(index);
        let count = ["configMapRef", "secretRef"]
            .iter()
            .filter(|reference| source.get(**reference).is_some())
            .count();
        if count != 1 {
            errors.invalid(
                &path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            );
        }
    }
}

pub(super) fn validate_mounts(
    container: &Value,
    path: &Path,
    volumes: &[&str],
    errors: &mut Errors,
) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, mount) in container.list_at("/volumeMounts").iter().enumerate() {
        let path = path.child("volumeMounts").index(index);
        match mount.str_at("/name") {
            "" => errors.required(&path.child("name"), ""),
            name if !volumes.contains(&name) => errors.not_found(&path.child("name"), name),
            _ => {}
        }
        let target = mount.str_at("/mountPath");
        if target.is_empty() {
            errors.required(&path.child("mountPath"), "");
        } else if seen.contains(&target) {
            errors.invalid(&path.child("mountPath"), target, "must be unique");
        }
        seen.push(target);
        let sub_path = mount.str_at("/subPath");
        if !sub_path.is_empty() {
            volumes::validate_relative(sub_path, &path.child("subPath"), errors);
        }
    }
}
