//! Rules of a pod's volumes.

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

/// Checks the volumes and returns their names.
pub(super) fn validate<'a>(spec: &'a Value, path: &Path, errors: &mut Errors) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (index, volume) in spec.list_at("/volumes").iter().enumerate() {
        let path = path.index(index);
        let name = volume.str_at("/name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            for why in names::label(name) {
                errors.invalid(&path.child("name"), name, why);
            }
        }
        if names.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        }
        names.push(name);
        validate_source(volume, &path, errors);
    }
    names
}

fn validate_source(volume: &Value, path: &Path, errors: &mut Errors) {
    let sources: Vec<&String> = volume
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .filter(|key| *key != "name")
        .collect();
    match sources.as_slice() {
        [] => return errors.required(path, "must specify a volume type"),
        [_] => {}
        [_, more @ ..] => {
            for source in more {
                errors.forbidden(
                    &path.child(source),
                    "may not specify more than 1 volume type",
                );
            }
        }
    }
    let required = |errors: &mut Errors, source: &str, field: &str| {
        if volume.get(source).is_some() && volume.str_at(&format!("/{source}/{field}")).is_empty() {
            errors.required(&path.child(source).child(field), "");
        }
    };
    required(errors, "secret", "secretName");
    required(errors, "configMap", "name");
    required(errors, "hostPath", "path");
    required(errors, "persistentVolumeClaim", "claimName");
    required(errors, "csi", "driver");
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        let mode = volume.int_at(&format!("/{source}/defaultMode"));
        check_mode(mode, &path.child(source).child("defaultMode"), errors);
        validate_items(
            volume.list_at(&format!("/{source}/items")),
            &path.child(source).child("items"),
            source == "downwardAPI",
            errors,
        );
    }
    let host_path = volume.str_at("/hostPath/path");
    if host_path.split('/').any(|part| part == "..") {
        errors.invalid(
            &path.child("hostPath").child("path"),
            host_path,
            "must not contain '..'",
        );
    }
    validate_empty_dir(volume, path, errors);
}

fn check_mode(mode: Option<i64>, path: &Path, errors: &mut Errors) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        errors.invalid(
            path,
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

fn validate_items(items: &[Value], path: &Path, downward: bool, errors: &mut Errors) {
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        if !downward && item.str_at("/key").is_empty() {
            errors.required(&path.child("key"), "");
        }
        check_mode(item.int_at("/mode"), &path.child("mode"), errors);
        match item.str_at("/path") {
            "" => errors.required(&path.child("path"), ""),
            file => validate_relative(file, &path.child("path"), errors),
        }
    }
}

/// A path that stays below where it starts.
pub(super) fn validate_relative(file: &str, path: &Path, errors: &mut Errors) {
    if file.starts_with('/') {
        errors.invalid(path, file, "must be a relative path");
    }
    if file.split('/').any(|part| part == "..") {
        errors.invalid(path, file, "must not contain '..'");
    } else if file.starts_with("..") {
        errors.invalid(path, file, "must not start with '..'");
    }
}

fn validate_empty_dir(volume: &Value, path: &Path, errors: &mut Errors) {
    let Some(empty_dir) = volume.get("emptyDir") else {
        return;
    };
    let path = path.child("emptyDir");
    let medium = empty_dir.str_at("/medium");
    if !matches!(medium, "" | "Memory") && !medium.starts_with("HugePages") {
        errors.not_supported(&path.child("medium"), medium, &["HugePages", "Memory"]);
    }
    let limit = empty_dir.str_at("/sizeLimit");
    if limit.starts_with('-') {
        errors.forbidden(
            &path.child("sizeLimit"),
            "SizeLimit field must be a valid resource quantity",
        );
    }
}
