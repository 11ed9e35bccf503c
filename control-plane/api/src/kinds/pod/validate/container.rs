//! One container.

use serde_json::Value;

use super::{
    environment::{validate_env, validate_mounts},
    ports::validate_ports,
    probe::{validate_handler, validate_probe},
    resources::validate_resources,
    validate_id,
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

pub(super) fn validate_container(
    container: &Value,
    path: &Path,
    volumes: &[&str],
    errors: &mut Errors,
) {
    let name = container.str_at("/name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        for why in names::label(name) {
            errors.invalid(&path.child("name"), name, why);
        }
    }
    let image = container.str_at("/image");
    if image.is_empty() {
        errors.required(&path.child("image"), "");
    } else if image.trim() != image {
        errors.invalid(
            &path.child("image"),
            image,
            "must not have leading or trailing whitespace",
        );
    }
    errors.check_supported(
        &path.child("imagePullPolicy"),
        container.str_at("/imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    errors.check_supported(
        &path.child("terminationMessagePolicy"),
        container.str_at("/terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    validate_ports(container, &path.child("ports"), errors);
    validate_env(container, path, errors);
    validate_mounts(container, path, volumes, errors);
    validate_resources(container, &path.child("resources"), errors);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = container.get(probe) {
            validate_probe(value, probe, &path.child(probe), errors);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(value) = container.pointer(&format!("/lifecycle/{hook}")) {
            validate_handler(
                value,
                &["exec", "httpGet", "tcpSocket", "sleep"],
                &path.child("lifecycle").child(hook),
                errors,
            );
        }
    }
    for field in ["runAsUser", "runAsGroup"] {
        validate_id(
            container.int_at(&format!("/securityContext/{field}")),
            &path.child("securityContext").child(field),
            errors,
        );
    }
}
