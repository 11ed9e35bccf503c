//! What a claim asks for.

use serde_json::Value;

use super::{validate_config, validate_selectors};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::{default_text, default_to},
};

const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;

/// Defaults of a claim's spec.
pub(super) fn default_spec(spec: &mut Value) {
    let Some(Value::Array(requests)) = spec.pointer_mut("/devices/requests") else {
        return;
    };
    for request in requests {
        if request.get("exactly").is_some() {
            default_device(request.map_mut(&["exactly"]));
        }
        if let Some(Value::Array(choices)) = request.get_mut("firstAvailable") {
            for choice in choices.iter_mut().filter_map(Value::as_object_mut) {
                default_device(choice);
            }
        }
    }
}

fn default_device(device: &mut serde_json::Map<String, Value>) {
    default_text(device, "allocationMode", "ExactCount");
    if device.get("allocationMode").and_then(Value::as_str) == Some("ExactCount") {
        default_to(device, "count", 1);
    }
}

/// Rules of a claim's spec.
pub(super) fn validate_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    let path = path.child("devices");
    let requests = spec.list_at("/devices/requests");
    let list = path.child("requests");
    if requests.len() > MAX_REQUESTS {
        errors.too_many(&list, requests.len(), MAX_REQUESTS);
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let path = list.index(index);
        check_name(request.str_at("/name"), &mut seen, &path, errors);
        validate_request(request, &path, errors);
    }
    let constraints = spec.list_at("/devices/constraints");
    if constraints.len() > MAX_CONSTRAINTS {
        errors.too_many(
            &path.child("constraints"),
            constraints.len(),
            MAX_CONSTRAINTS,
        );
    }
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.child("constraints").index(index);
        for (at, name) in constraint.list_at("/requests").iter().enumerate() {
            let name = name.as_str().unwrap_or("");
            let main = name.split('/').next().unwrap_or("");
            if !seen.contains(&main) {
                errors.invalid(
                    &path.child("requests").index(at),
                    name,
                    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                );
            }
        }
    }
    validate_config(
        spec.list_at("/devices/config"),
        &path.child("config"),
        errors,
    );
}

fn check_name<'a>(name: &'a str, seen: &mut Vec<&'a str>, path: &Path, errors: &mut Errors) {
    let path = path.child("name");
    if name.is_empty() {
        return errors.required(&path, "");
    }
    for why in names::label(name) {
        errors.invalid(&path, name, why);
    }
    if seen.contains(&name) {
        errors.duplicate(&path, name);
    }
    seen.push(name);
}

fn validate_request(request: &Value, path: &Path, errors: &mut Errors) {
    let choices = request.list_at("/firstAvailable");
    match (request.get("exactly"), choices.is_empty()) {
        (None, true) => errors.required(
            path,
            "exactly one of `exactly` or `firstAvailable` is required",
        ),
        (Some(_), false) => errors.invalid(
            path,
            request.clone(),
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (Some(device), true) => validate_device(device, &path.child("exactly"), errors),
        (None, false) => {
            let list = path.child("firstAvailable");
            let mut seen = Vec::new();
            for (index, choice) in choices.iter().enumerate() {
                let path = list.index(index);
                check_name(choice.str_at("/name"), &mut seen, &path, errors);
                validate_device(choice, &path, errors);
            }
        }
    }
}

fn validate_device(device: &Value, path: &Path, errors: &mut Errors) {
    let class = device.str_at("/deviceClassName");
    if class.is_empty() {
        errors.required(&path.child("deviceClassName"), "");
    } else {
        for why in names::subdomain(class) {
            errors.invalid(&path.child("deviceClassName"), class, why);
        }
    }
    let count = device.int_at("/count");
    match device.str_at("/allocationMode") {
        "ExactCount" => {
            if count.is_none_or(|count| count <= 0) {
                errors.invalid(
                    &path.child("count"),
                    count.unwrap_or(0),
                    "must be greater than zero",
                );
            }
        }
        "All" => {
            if let Some(count) = count {
                errors.invalid(
                    &path.child("count"),
                    count,
                    "must not be specified when allocationMode is 'All'",
                );
            }
        }
        other => errors.not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    validate_selectors(
        device.list_at("/selectors"),
        &path.child("selectors"),
        errors,
    );
}
