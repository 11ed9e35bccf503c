//! One container: what holds for all, and for those of one list.

use serde_json::Value;

use super::{
    Surroundings,
    claims::validate_taken,
    environment::validate_env,
    mounts::{validate_devices, validate_mounts},
    ports::validate_ports,
    probe::{validate_handler, validate_probe},
    resources::{validate_resize_policy, validate_resources},
    security::validate_context,
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// Checks a container of `spec.containers` or, when it `runs_first`, of `spec.initContainers`.
pub(super) fn validate_regular(
    container: &Value,
    runs_first: bool,
    around: &Surroundings<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    validate_container(container, around, path, errors);
    validate_restarts(container, path, errors);
    // A sidecar is an init container that lives as long as the pod.
    if runs_first && container.str_at("/restartPolicy") != "Always" {
        for field in ["lifecycle"].iter().chain(&PROBES) {
            if container.get(*field).is_some() {
                errors.forbidden(
                    &path.child(field),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
        return;
    }
    for probe in PROBES {
        if let Some(value) = container.get(probe) {
            validate_probe(value, probe, &path.child(probe), errors);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(value) = container.pointer(&format!("/lifecycle/{hook}")) {
            let path = path.child("lifecycle").child(hook);
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            validate_handler(value, &kinds, &path, errors);
            validate_sleep(value, around, &path.child("sleep"), errors);
        }
    }
}

/// Checks what any container may have.
pub(super) fn validate_container(
    container: &Value,
    around: &Surroundings<'_>,
    path: &Path,
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
    validate_mounts(container, around, &path.child("volumeMounts"), errors);
    validate_devices(container, around, &path.child("volumeDevices"), errors);
    let resources = path.child("resources");
    validate_resources(container, &resources, errors);
    validate_taken(
        container,
        &around.claims,
        &resources.child("claims"),
        errors,
    );
    validate_resize_policy(container, around, &path.child("resizePolicy"), errors);
    let context = path.child("securityContext");
    validate_context(container, around.host_users, &context, errors);
}

/// A container's own restart policy, and the rules that come before it.
fn validate_restarts(container: &Value, path: &Path, errors: &mut Errors) {
    let policy = container.get("restartPolicy").and_then(Value::as_str);
    if let Some(policy) = policy {
        errors.check_supported(
            &path.child("restartPolicy"),
            policy,
            &["Always", "Never", "OnFailure"],
        );
    }
    let rules = container.list_at("/restartPolicyRules");
    if policy.is_none() && !rules.is_empty() {
        errors.required(
            &path.child("restartPolicy"),
            "must specify restartPolicy when restart rules are used",
        );
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("restartPolicyRules").index(index);
        errors.check_supported(
            &path.child("action"),
            rule.str_at("/action"),
            &["Restart", "RestartAllContainers"],
        );
        if rule.get("exitCodes").is_some() {
            errors.check_supported(
                &path.child("exitCodes").child("operator"),
                rule.str_at("/exitCodes/operator"),
                &["In", "NotIn"],
            );
        }
    }
}

fn validate_sleep(hook: &Value, around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    if let (Some(seconds), Some(grace)) = (hook.int_at("/sleep/seconds"), around.grace_s)
        && !(0..=grace).contains(&seconds)
    {
        errors.invalid(
            path,
            seconds,
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
        );
    }
}
