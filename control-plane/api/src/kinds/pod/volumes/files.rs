//! Files that a volume is filled with: their paths and modes.

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    kinds::pod::validate::validate_file,
};

pub(super) fn check_mode(mode: Option<i64>, path: &Path, errors: &mut Errors) {
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

/// Keys of a Secret or ConfigMap that become files.
pub(super) fn validate_key_items(items: &[Value], path: &Path, errors: &mut Errors) {
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        if item.str_at("/key").is_empty() {
            errors.required(&path.child("key"), "");
        }
        validate_place(item, &path, errors);
    }
}

/// Parts of the pod itself that become files.
pub(super) fn validate_downward_items(items: &[Value], path: &Path, errors: &mut Errors) {
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        validate_place(item, &path, errors);
        validate_file(item, &path, errors);
    }
}

fn validate_place(item: &Value, path: &Path, errors: &mut Errors) {
    check_mode(item.int_at("/mode"), &path.child("mode"), errors);
    match item.str_at("/path") {
        "" => errors.required(&path.child("path"), ""),
        file => validate_relative(file, &path.child("path"), errors),
    }
}

/// A path that stays below where it starts, and does not begin like what the node itself puts
/// there.
pub(super) fn validate_relative(file: &str, path: &Path, errors: &mut Errors) {
    validate_descending(file, path, errors);
    if file.starts_with("..") && !file.split('/').any(|part| part == "..") {
        errors.invalid(path, file, "must not start with '..'");
    }
}

/// A path that stays below where it starts.
pub(in crate::kinds::pod) fn validate_descending(file: &str, path: &Path, errors: &mut Errors) {
    if file.starts_with('/') {
        errors.invalid(path, file, "must be a relative path");
    }
    if file.split('/').any(|part| part == "..") {
        errors.invalid(path, file, "must not contain '..'");
    }
}
