//! Probes and lifecycle hooks.

use serde_json::Value;

use super::ports::check_port;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

pub(super) fn validate_probe(probe: &Value, name: &str, path: &Path, errors: &mut Errors) {
    validate_handler(
        probe,
        &["exec", "httpGet", "tcpSocket", "grpc"],
        path,
        errors,
    );
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        errors.check_non_negative(&path.child(field), probe.int_at(&format!("/{field}")));
    }
    let successes = probe.int_at("/successThreshold").unwrap_or(1);
    if name != "readinessProbe" && successes != 1 {
        errors.invalid(&path.child("successThreshold"), successes, "must be 1");
    }
    if let Some(grace) = probe.int_at("/terminationGracePeriodSeconds") {
        let path = path.child("terminationGracePeriodSeconds");
        if grace <= 0 {
            errors.invalid(&path, grace, "must be greater than 0");
        }
        if name == "readinessProbe" {
            errors.invalid(&path, grace, "must not be set for readinessProbes");
        }
    }
}

pub(super) fn validate_handler(
    handler: &Value,
    allowed: &[&str],
    path: &Path,
    errors: &mut Errors,
) {
    let given: Vec<&&str> = allowed
        .iter()
        .filter(|kind| handler.get(**kind).is_some())
        .collect();
    match given.as_slice() {
        [] => return errors.required(path, "must specify a handler type"),
        [_] => {}
        [_, more @ ..] => {
            for kind in more {
                errors.forbidden(
                    &path.child(kind),
                    "may not specify more than 1 handler type",
                );
            }
        }
    }
    if handler.get("exec").is_some() && handler.list_at("/exec/command").is_empty() {
        errors.required(&path.child("exec").child("command"), "");
    }
    for kind in ["httpGet", "tcpSocket", "grpc"] {
        let Some(port) = handler
            .get(kind)
            .map(|value| value.get("port").unwrap_or(&Value::Null))
        else {
            continue;
        };
        let path = path.child(kind).child("port");
        match port {
            Value::Number(number) => check_port(number.as_i64().unwrap_or(0), &path, errors),
            Value::String(name) => {
                for why in names::port_name(name) {
                    errors.invalid(&path, name.as_str(), why);
                }
            }
            _ => errors.invalid(&path, 0, "must be between 1 and 65535, inclusive"),
        }
    }
    if let Some(get) = handler.get("httpGet") {
        validate_http_get(get, &path.child("httpGet"), errors);
    }
}

fn validate_http_get(get: &Value, path: &Path, errors: &mut Errors) {
    errors.check_supported(
        &path.child("scheme"),
        get.str_at("/scheme"),
        &["HTTP", "HTTPS"],
    );
    for header in get.list_at("/httpHeaders") {
        let name = header.str_at("/name");
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || !name.bytes().all(letters) {
            errors.invalid(&path.child("httpHeaders"), name, HEADER_TEXT);
        }
    }
}

const HEADER_TEXT: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
