//! The restricted level: what a hardened pod says of itself.

use hull_api::ObjectExt;
use serde_json::Value;

use super::{
    Violation,
    baseline::{proc_mount, unconfined_seccomp},
    broken, containers, distinct, has_own_users, named, plural, quoted, subject, subjects,
};

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What the level forbids besides the baseline in version 1.`minor`.
pub(super) fn check(spec: &Value, minor: u32) -> Vec<Violation> {
    // From then on pods of another system need not name what exists on Linux only, and root of
    // the pod's own users is nobody.
    let windows = minor >= 25 && spec.str_at("/os/name") == "windows";
    let own_users = minor >= 35 && has_own_users(spec);
    let rule = |applies: bool, found: fn(&Value) -> Option<String>| {
        if applies { found(spec) } else { None }
    };
    broken([
        (
            "allowPrivilegeEscalation != false",
            rule(minor >= 8 && !windows, escalation),
        ),
        (
            "unrestricted capabilities",
            rule(minor >= 22 && !windows, capabilities),
        ),
        ("procMount", rule(minor >= 35, proc_mount)),
        ("restricted volume types", volumes(spec)),
        ("runAsNonRoot != true", rule(!own_users, non_root)),
        ("runAsUser=0", rule(minor >= 23 && !own_users, root_user)),
        ("seccompProfile", rule(minor >= 19 && !windows, seccomp)),
    ])
}

fn escalation(spec: &Value) -> Option<String> {
    let names = named(spec, |container| {
        container.pointer("/securityContext/allowPrivilegeEscalation") != Some(&Value::Bool(false))
    });
    (!names.is_empty()).then(|| {
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            subject(&names)
        )
    })
}

fn capabilities(spec: &Value) -> Option<String> {
    let drops_all = |container: &Value| {
        container
            .list_at("/securityContext/capabilities/drop")
            .iter()
            .any(|name| name == "ALL")
    };
    let added = |container: &Value| -> Vec<String> {
        container
            .list_at("/securityContext/capabilities/add")
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "NET_BIND_SERVICE")
            .map(str::to_string)
            .collect()
    };
    let mut details = Vec::new();
    let keeping = named(spec, |container| !drops_all(container));
    if !keeping.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            subject(&keeping)
        ));
    }
    let adding = named(spec, |container| !added(container).is_empty());
    if !adding.is_empty() {
        let all: Vec<String> = containers(spec).flat_map(added).collect();
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            subject(&adding),
            quoted(all.iter().map(String::as_str))
        ));
    }
    (!details.is_empty()).then(|| details.join("; "))
}

fn volumes(spec: &Value) -> Option<String> {
    let wrong: Vec<(&str, &str)> = spec
        .list_at("/volumes")
        .iter()
        .filter_map(|volume| {
            let source = volume
                .as_object()?
                .keys()
                .find(|key| *key != "name" && !VOLUMES.contains(&key.as_str()))?;
            Some((volume.str_at("/name"), source.as_str()))
        })
        .collect();
    if wrong.is_empty() {
        return None;
    }
    let names: Vec<String> = wrong.iter().map(|(name, _)| format!("{name:?}")).collect();
    let types = distinct(wrong.iter().map(|(_, source)| *source));
    Some(format!(
        "{} {} {} {} {}",
        plural(wrong.len(), "volume", "volumes"),
        names.join(", "),
        plural(wrong.len(), "uses", "use"),
        plural(
            types.len(),
            "restricted volume type",
            "restricted volume types"
        ),
        types.join(", ")
    ))
}

/// Containers that say nothing of something which their pod does not say for them.
fn silent(spec: &Value, pointer: &str) -> Vec<String> {
    if spec.pointer(pointer).is_some() {
        return Vec::new();
    }
    named(spec, |container| container.pointer(pointer).is_none())
}

fn non_root(spec: &Value) -> Option<String> {
    const POINTER: &str = "/securityContext/runAsNonRoot";
    let root = |object: &Value| object.pointer(POINTER) == Some(&Value::Bool(false));
    if let Some(who) = subjects(root(spec), &named(spec, root)) {
        return Some(format!(
            "{who} must not set securityContext.runAsNonRoot=false"
        ));
    }
    let names = silent(spec, POINTER);
    (!names.is_empty()).then(|| {
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            subject(&names)
        )
    })
}

fn seccomp(spec: &Value) -> Option<String> {
    if let Some(detail) = unconfined_seccomp(spec) {
        return Some(detail);
    }
    let names = silent(spec, "/securityContext/seccompProfile/type");
    (!names.is_empty()).then(|| {
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            subject(&names)
        )
    })
}

fn root_user(spec: &Value) -> Option<String> {
    let root = |object: &Value| object.int_at("/securityContext/runAsUser") == Some(0);
    let who = subjects(root(spec), &named(spec, root))?;
    Some(format!("{who} must not set runAsUser=0"))
}
