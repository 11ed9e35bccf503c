//! Rules of a pod's spec (Kubernetes: pkg/apis/core/validation), one file per part.

mod affinity;
mod claims;
mod container;
mod dns;
mod downward;
mod environment;
mod ephemeral;
mod mounts;
mod ports;
mod probe;
mod resources;
mod security;
mod spread;
#[cfg(test)]
mod tests;
mod tolerations;

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;

pub(crate) use affinity::validate_node_selector;
pub(super) use downward::validate_file;
pub(super) use ephemeral::validate_ephemeral;
pub(crate) use resources::validate_resource_list;
pub(super) use resources::{HUGE_PAGES, amount, may_be_overcommitted, validate_requirements};
pub(crate) use tolerations::validate_tolerations;

use self::{
    affinity::validate_affinity, claims::validate_claims, container::validate_regular,
    dns::validate_dns, ports::validate_ports_unique, security::validate_pod_context,
    spread::validate_spread,
};
use super::{gates, pod_resources, volumes};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

/// What a container's rules look at beside the container.
struct Surroundings<'a> {
    volumes: HashMap<&'a str, &'a Value>,
    /// Names of the pod's claims on devices.
    claims: BTreeSet<&'a str>,
    /// The pod has no user namespace of its own.
    host_users: bool,
    never_restarts: bool,
    /// How long the pod has to end, seconds.
    grace_s: Option<i64>,
}

impl<'a> Surroundings<'a> {
    fn of(spec: &'a Value) -> Self {
        let claims = spec.list_at("/resourceClaims").iter();
        Surroundings {
            volumes: spec
                .list_at("/volumes")
                .iter()
                .map(|volume| (volume.str_at("/name"), volume))
                .collect(),
            claims: claims.map(|claim| claim.str_at("/name")).collect(),
            host_users: spec.get("hostUsers") != Some(&Value::Bool(false)),
            never_restarts: spec.str_at("/restartPolicy") == "Never",
            grace_s: spec.int_at("/terminationGracePeriodSeconds"),
        }
    }

    fn volume(&self, name: &str) -> Option<&'a Value> {
        self.volumes.get(name).copied()
    }
}

/// Checks a pod's spec or that of a template.
pub(crate) fn validate_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    volumes::validate(spec, &path.child("volumes"), errors);
    validate_claims(spec, &path.child("resourceClaims"), errors);
    validate_containers(spec, path, errors);
    errors.check_supported(
        &path.child("restartPolicy"),
        spec.str_at("/restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    validate_dns(spec, path, errors);
    validate_deadline(spec, path, errors);
    validate_pod_context(spec, path, errors);
    validate_names(spec, path, errors);
    validate_affinity(spec, &path.child("affinity"), errors);
    validate_spread(spec, &path.child("topologySpreadConstraints"), errors);
    validate_tolerations(
        spec.list_at("/tolerations"),
        &path.child("tolerations"),
        errors,
    );
    crate::selector::label::validate_labels(
        spec.map_at("/nodeSelector"),
        &path.child("nodeSelector"),
        errors,
    );
    validate_host_network(spec, path, errors);
    validate_choices(spec, path, errors);
    gates::validate(spec, path, errors);
    validate_resource_list(spec.map_at("/overhead"), &path.child("overhead"), errors);
    pod_resources::validate(spec, &path.child("resources"), errors);
}

fn validate_containers(spec: &Value, path: &Path, errors: &mut Errors) {
    let around = Surroundings::of(spec);
    let containers = spec.list_at("/containers");
    if containers.is_empty() {
        errors.required(&path.child("containers"), "");
    }
    let mut seen = HashSet::new();
    for list in ["containers", "initContainers"] {
        let runs_first = list == "initContainers";
        for (index, container) in spec.list_at(&format!("/{list}")).iter().enumerate() {
            let path = path.child(list).index(index);
            validate_regular(container, runs_first, &around, &path, errors);
            let name = container.str_at("/name");
            if !name.is_empty() && !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
    }
    validate_ports_unique(containers, &path.child("containers"), errors);
}

/// Fields that are one of a few words, and conditions that others set.
fn validate_choices(spec: &Value, path: &Path, errors: &mut Errors) {
    if let Some(policy) = spec.get("preemptionPolicy").and_then(Value::as_str) {
        errors.check_supported(
            &path.child("preemptionPolicy"),
            policy,
            &["Never", "PreemptLowerPriority"],
        );
    }
    if spec.get("os").is_some() {
        let path = path.child("os");
        match spec.str_at("/os/name") {
            "" => errors.required(&path.child("name"), "cannot be empty"),
            name => errors.check_supported(&path, name, &["linux", "windows"]),
        }
    }
    for (index, gate) in spec.list_at("/readinessGates").iter().enumerate() {
        let condition = gate.str_at("/conditionType");
        for why in names::qualified_name(condition) {
            let path = path.child("readinessGates").index(index);
            errors.invalid(&path.child("conditionType"), condition, why);
        }
    }
}

fn validate_deadline(spec: &Value, path: &Path, errors: &mut Errors) {
    if let Some(seconds) = spec.int_at("/activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.invalid(
            &path.child("activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        );
    }
}

fn validate_names(spec: &Value, path: &Path, errors: &mut Errors) {
    type Rule = fn(&str) -> Vec<String>;
    let rules: [(&str, Rule); 7] = [
        ("hostname", names::label),
        ("subdomain", names::label),
        ("nodeName", names::subdomain),
        ("serviceAccountName", names::subdomain),
        ("schedulerName", names::qualified_name),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
    ];
    for (field, rule) in rules {
        let value = spec.str_at(&format!("/{field}"));
        if !value.is_empty() {
            for why in rule(value) {
                errors.invalid(&path.child(field), value, why);
            }
        }
    }
    for (index, reference) in spec.list_at("/imagePullSecrets").iter().enumerate() {
        if reference.str_at("/name").is_empty() {
            errors.required(
                &path.child("imagePullSecrets").index(index).child("name"),
                "",
            );
        }
    }
}

fn validate_host_network(spec: &Value, path: &Path, errors: &mut Errors) {
    if !spec.bool_at("/hostNetwork") {
        return;
    }
    for (index, container) in spec.list_at("/containers").iter().enumerate() {
        for (at, port) in container.list_at("/ports").iter().enumerate() {
            if port.get("hostPort") != port.get("containerPort") {
                errors.invalid(
                    &path
                        .child("containers")
                        .index(index)
                        .child("ports")
                        .index(at)
                        .child("hostPort"),
                    port.get("hostPort").cloned().unwrap_or(Value::Null),
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}
