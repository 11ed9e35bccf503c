//! The restricted level: what a hardened pod says of itself.

use hull_api::ObjectExt;
use serde_json::Value;

use super::{Violation, containers, named, quoted, subject};

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

/// Collects violations.
pub(super) fn check(spec: &Value, found: &mut Vec<Violation>) {
    let mut add = |rule: &'static str, details: Vec<String>| {
        if !details.is_empty() {
            found.push(Violation {
                rule,
                detail: details.join("; "),
            });
        }
    };
    let escalating = named(spec, |container| {
        container.pointer("/securityContext/allowPrivilegeEscalation") != Some(&Value::Bool(false))
    });
    add(
        "allowPrivilegeEscalation != false",
        must(
            &escalating,
            "must set securityContext.allowPrivilegeEscalation=false",
        ),
    );
    add("unrestricted capabilities", capabilities(spec));
    add("restricted volume types", volumes(spec));
    add("runAsNonRoot != true", non_root(spec));
    add("runAsUser=0", root_user(spec));
    add("seccompProfile", seccomp(spec));
}

fn must(names: &[String], words: &str) -> Vec<String> {
    if names.is_empty() {
        return Vec::new();
    }
    vec![format!("{} {words}", subject(names))]
}

fn capabilities(spec: &Value) -> Vec<String> {
    let drops_all = |container: &Value| {
        container
            .list_at("/securityContext/capabilities/drop")
            .iter()
            .any(|name| name == "ALL")
    };
    let keeping = named(spec, |container| !drops_all(container));
    let mut details = must(
        &keeping,
        "must set securityContext.capabilities.drop=[\"ALL\"]",
    );
    let added = |container: &Value| -> Vec<String> {
        container
            .list_at("/securityContext/capabilities/add")
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "NET_BIND_SERVICE")
            .map(str::to_string)
            .collect()
    };
    let adding = named(spec, |container| !added(container).is_empty());
    if !adding.is_empty() {
        let all: Vec<String> = containers(spec).flat_map(added).collect();
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            subject(&adding),
            quoted(all.iter().map(String::as_str))
        ));
    }
    details
}

fn volumes(spec: &Value) -> Vec<String> {
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
        return Vec::new();
    }
    let names: Vec<String> = wrong.iter().map(|(name, _)| format!("{name:?}")).collect();
    let types = quoted(wrong.iter().map(|(_, source)| *source));
    let one = wrong.len() == 1;
    vec![format!(
        "{} {} {} restricted volume {} {types}",
        if one { "volume" } else { "volumes" },
        names.join(", "),
        if one { "uses" } else { "use" },
        if types.contains(',') { "types" } else { "type" },
    )]
}

/// Containers that neither fulfil a condition themselves nor leave it to a pod that does.
fn without(spec: &Value, pointer: &str, good: impl Fn(&Value) -> bool) -> (Vec<String>, bool) {
    let pod_is_good = spec.pointer(pointer).is_some_and(&good);
    let pod_is_bad = spec.pointer(pointer).is_some_and(|value| !good(value));
    let names = named(spec, |container| match container.pointer(pointer) {
        Some(own) => !good(own),
        None => !pod_is_good,
    });
    (names, pod_is_bad)
}

fn non_root(spec: &Value) -> Vec<String> {
    let (names, pod_is_bad) = without(spec, "/securityContext/runAsNonRoot", |value| {
        value.as_bool() == Some(true)
    });
    either(
        &names,
        pod_is_bad,
        "securityContext.runAsNonRoot=true",
        "set",
    )
}

fn seccomp(spec: &Value) -> Vec<String> {
    let (names, pod_is_bad) = without(spec, "/securityContext/seccompProfile/type", |value| {
        matches!(value.as_str(), Some("RuntimeDefault" | "Localhost"))
    });
    either(
        &names,
        pod_is_bad,
        "securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        "set",
    )
}

fn either(names: &[String], pod_is_bad: bool, words: &str, verb: &str) -> Vec<String> {
    match (names.is_empty(), pod_is_bad) {
        (true, false) => Vec::new(),
        (true, true) => vec![format!("pod must {verb} {words}")],
        (false, _) => vec![format!("pod or {} must {verb} {words}", subject(names))],
    }
}

fn root_user(spec: &Value) -> Vec<String> {
    const POINTER: &str = "/securityContext/runAsUser";
    let mut details = Vec::new();
    if spec.int_at(POINTER) == Some(0) {
        details.push("pod must not set runAsUser=0".to_string());
    }
    let names = named(spec, |container| container.int_at(POINTER) == Some(0));
    details.extend(must(&names, "must not set runAsUser=0"));
    details
}
