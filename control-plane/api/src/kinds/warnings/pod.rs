//! Pods and pod templates.

use serde_json::Value;

use super::{
    Warnings, annotation, annotations, fraction_of_bytes, network,
    node::{self, Values},
    ports, volumes,
};
use crate::{ObjectExt, field::Path};

/// Annotations that do nothing any more.
const GONE_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR_OF_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";
const USE_SECCOMP_FIELD: &str =
    "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";
/// Resources that are counted in bytes.
const IN_BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

pub(super) fn of_pod(pod: &Value, out: &mut Warnings) {
    of_parts(pod, "", out);
}

/// `path` is the template's.
pub(super) fn of_template(template: Option<&Value>, path: &str, out: &mut Warnings) {
    if let Some(template) = template {
        of_parts(template, path, out);
    }
}

fn of_parts(pod: &Value, parent: &str, out: &mut Warnings) {
    static NONE: Value = Value::Null;
    let spec = pod.get("spec").unwrap_or(&NONE);
    let path = Path::new(parent).child("spec");
    placement(spec, &path, out);
    for (key, words) in GONE_ANNOTATIONS {
        if annotation(pod, key).is_some() {
            out.at(&annotations(parent).key(key), words);
        }
    }
    volumes::of_spec(spec, &path, out);
    addresses(spec, &path, out);
    pull_secrets(spec, &path, out);
    for name in IN_BYTES {
        fraction_of_bytes(spec.get("overhead"), name, &path.child("overhead"), out);
    }
    if annotation(pod, SECCOMP_OF_POD).is_some() && !has_profile(spec, "seccompProfile") {
        out.at(&annotations(parent).key(SECCOMP_OF_POD), USE_SECCOMP_FIELD);
    }
    let containers = containers(spec, &path);
    for (path, container) in &containers {
        annotations_of_container(pod, container, parent, out);
        of_container(container, path, out);
    }
    ports::of_containers(&containers, out);
    let grace = spec.int_at("/terminationGracePeriodSeconds");
    if grace.is_some_and(|seconds| seconds < 0) {
        out.at(
            &path.child("terminationGracePeriodSeconds"),
            "must be >= 0; negative values are invalid and will be treated as 1",
        );
    }
    pod_affinity(spec, &path, out);
}

/// All containers of a pod, with their paths.
fn containers<'a>(spec: &'a Value, path: &Path) -> Vec<(Path, &'a Value)> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let lists = lists.iter().flat_map(|list| {
        let path = path.child(list);
        let containers = spec.list_at(&format!("/{list}")).iter().enumerate();
        containers.map(move |(index, container)| (path.index(index), container))
    });
    lists.collect()
}

/// `holder` is a pod's spec or a container.
fn has_profile(holder: &Value, field: &str) -> bool {
    let profile = holder.pointer(&format!("/securityContext/{field}"));
    profile.is_some_and(Value::is_object)
}

fn placement(spec: &Value, path: &Path, out: &mut Warnings) {
    for key in spec
        .map_at("/nodeSelector")
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
    {
        if let Some(words) = node::deprecated_label(key) {
            out.at(&path.child("nodeSelector").key(key), words);
        }
    }
    let affinity = path.child("affinity.nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = spec.list_at(&format!(
        "/affinity/nodeAffinity/{required}/nodeSelectorTerms"
    ));
    for (index, term) in terms.iter().enumerate() {
        let path = affinity
            .child(required)
            .child("nodeSelectorTerms")
            .index(index);
        node::of_term(term, Values::Checked, &path, out);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let terms = spec.list_at(&format!("/affinity/nodeAffinity/{preferred}"));
    for (index, term) in terms.iter().enumerate() {
        if let Some(term) = term.get("preference") {
            let path = affinity.child(preferred).index(index).child("preference");
            node::of_term(term, Values::Unchecked, &path, out);
        }
    }
    let constraints = spec.list_at("/topologySpreadConstraints");
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(index);
        let key = constraint.str_at("/topologyKey");
        if let Some(words) = node::deprecated_label(key) {
            out.at(&path.child("topologyKey"), format!("{key} is {words}"));
        }
        null_selector(constraint, &path, out);
    }
}

fn null_selector(holder: &Value, path: &Path, out: &mut Warnings) {
    if holder.get("labelSelector").is_none_or(Value::is_null) {
        out.at(&path.child("labelSelector"), NULL_SELECTOR);
    }
}

fn pod_affinity(spec: &Value, path: &Path, out: &mut Warnings) {
    for field in ["podAffinity", "podAntiAffinity"] {
        let path = path.child("affinity").child(field);
        let terms = |when: &str| spec.list_at(&format!("/affinity/{field}/{when}"));
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in terms(required).iter().enumerate() {
            null_selector(term, &path.child(required).index(index), out);
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in terms(preferred).iter().enumerate() {
            if let Some(term) = term.get("podAffinityTerm") {
                let path = path.child(preferred).index(index).child("podAffinityTerm");
                null_selector(term, &path, out);
            }
        }
    }
}

fn addresses(spec: &Value, path: &Path, out: &mut Warnings) {
    let servers = path.child("dnsConfig.nameservers");
    for (index, server) in spec.list_at("/dnsConfig/nameservers").iter().enumerate() {
        network::address(
            server.as_str().unwrap_or_default(),
            &servers.index(index),
            out,
        );
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, alias) in spec.list_at("/hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(index).child("ip");
        let ip = alias.str_at("/ip");
        if seen.contains(&ip) {
            out.at(&path, format!("duplicate ip {ip:?}"));
        }
        seen.push(ip);
        network::address(ip, &path, out);
    }
}

fn pull_secrets(spec: &Value, path: &Path, out: &mut Warnings) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, secret) in spec.list_at("/imagePullSecrets").iter().enumerate() {
        let path = path.child("imagePullSecrets").index(index).child("name");
        let name = secret.str_at("/name");
        if seen.contains(&name) {
            out.at(&path, format!("duplicate name {name:?}"));
        }
        if name.is_empty() {
            out.at(&path, "invalid empty name \"\"");
        }
        seen.push(name);
    }
}

fn annotations_of_container(pod: &Value, container: &Value, parent: &str, out: &mut Warnings) {
    let name = container.str_at("/name");
    let key = format!("{SECCOMP_OF_CONTAINER}{name}");
    if annotation(pod, &key).is_some() && !has_profile(container, "seccompProfile") {
        out.at(&annotations(parent).key(&key), USE_SECCOMP_FIELD);
    }
    let has_field = [pod.get("spec").unwrap_or(&Value::Null), container]
        .iter()
        .any(|holder| has_profile(holder, "appArmorProfile"));
    let key = format!("{APP_ARMOR_OF_CONTAINER}{name}");
    if annotation(pod, &key).is_some() && !has_field {
        out.at(
            &annotations(parent).key(&key),
            "deprecated since v1.30; use the \"appArmorProfile\" field instead",
        );
    }
}

fn of_container(container: &Value, path: &Path, out: &mut Warnings) {
    for name in IN_BYTES {
        for part in ["limits", "requests"] {
            let amounts = container.pointer(&format!("/resources/{part}"));
            let path = path.child("resources").child(part);
            fraction_of_bytes(amounts, name, &path, out);
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, variable) in container.list_at("/env").iter().enumerate() {
        let name = variable.str_at("/name");
        if seen.contains(&name) && hides_earlier(variable) {
            out.at(
                &path.child("env").index(index),
                format!(
                    "hides previous definition of {name:?}, which may be dropped when using apply"
                ),
            );
        }
        seen.push(name);
    }
}

/// A second variable of a name is meant if it adds to the first: `X=$(X)more`.
fn hides_earlier(variable: &Value) -> bool {
    let (value, earlier) = (
        variable.str_at("/value"),
        format!("$({})", variable.str_at("/name")),
    );
    variable.get("valueFrom").is_some() || value == earlier || !value.contains(&earlier)
}
