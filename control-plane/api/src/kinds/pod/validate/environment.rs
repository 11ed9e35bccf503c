//! Environment variables of containers.

use serde_json::{Map, Value};

use super::downward::{ENVIRONMENT_FIELDS, validate_field_ref, validate_resource_ref};
use crate::{
    ObjectExt,
    field::{Errors, Path},
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
            if let Some(given) = source.get(reference) {
                validate_key_ref(given, &path.child(reference), errors);
            }
        }
        if let Some(field) = source.get("fieldRef") {
            validate_field_ref(field, &ENVIRONMENT_FIELDS, &path.child("fieldRef"), errors);
        }
        if let Some(resource) = source.get("resourceFieldRef") {
            validate_resource_ref(resource, false, &path.child("resourceFieldRef"), errors);
        }
    }
    validate_env_from(container, &path.child("envFrom"), errors);
}

fn validate_key_ref(reference: &Value, path: &Path, errors: &mut Errors) {
    let name = reference.str_at("/name");
    for why in names::subdomain(name) {
        errors.invalid(&path.child("name"), name, why);
    }
    match reference.str_at("/key") {
        "" => errors.required(&path.child("key"), ""),
        key => {
            for why in names::config_key(key) {
                errors.invalid(&path.child("key"), key, why);
            }
        }
    }
}

fn validate_env_from(container: &Value, path: &Path, errors: &mut Errors) {
    for (index, source) in container.list_at("/envFrom").iter().enumerate() {
        let at = path.index(index);
        let prefix = source.str_at("/prefix");
        if !prefix.is_empty() {
            for why in names::env_name(prefix) {
                errors.invalid(&at.child("prefix"), prefix, why);
            }
        }
        let mut count = 0;
        for reference in ["configMapRef", "secretRef"] {
            let Some(given) = source.get(reference) else {
                continue;
            };
            count += 1;
            let path = at.child(reference).child("name");
            match given.str_at("/name") {
                "" => errors.required(&path, ""),
                name => {
                    for why in names::subdomain(name) {
                        errors.invalid(&path, name, why);
                    }
                }
            }
        }
        match count {
            0 => errors.invalid(
                path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            ),
            1 => {}
            _ => errors.invalid(
                path,
                "",
                "may not have more than one field specified at a time",
            ),
        }
    }
}
