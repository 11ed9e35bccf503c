//! Rules of a pod's spec (Kubernetes: pkg/apis/core/validation), one file per part.

mod container;
mod environment;
mod ephemeral;
mod ports;
mod probe;
mod resources;
mod tolerations;

use serde_json::Value;

pub(super) use ephemeral::validate_ephemeral;
pub(crate) use resources::validate_resource_list;
pub(crate) use tolerations::validate_tolerations;

use self::{container::validate_container, ports::validate_ports_unique};
use super::{gates, volumes};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

/// Checks a pod's spec or that of a template.
pub(crate) fn validate_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    let volume_names = volumes::validate(spec, &path.child("volumes"), errors);
    let mut seen: Vec<&str> = Vec::new();
    let containers = spec.list_at("/containers");
    if containers.is_empty() {
        errors.required(&path.child("containers"), "");
    }
    for list in ["containers", "initContainers"] {
        for (index, container) in spec.list_at(&format!("/{list}")).iter().enumerate() {
            let path = path.child(list).index(index);
            validate_container(container, &path, &volume_names, errors);
            let name = container.str_at("/name");
            if !name.is_empty() && seen.contains(&name) {
                errors.duplicate(&path.child("name"), name);
            }
            seen.push(name);
        }
    }
    validate_ports_unique(containers, &path.child("containers"), errors);
    errors.check_supported(
        &path.child("restartPolicy"),
        spec.str_at("/restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    validate_dns(spec, path, errors);
    validate_numbers(spec, path, errors);
    validate_names(spec, path, errors);
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
    gates::validate(spec, path, errors);
    validate_resource_list(spec.map_at("/overhead"), &path.child("overhead"), errors);
}

fn validate_dns(spec: &Value, path: &Path, errors: &mut Errors) {
    let policy = spec.str_at("/dnsPolicy");
    errors.check_supported(
        &path.child("dnsPolicy"),
        policy,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    let servers = spec.list_at("/dnsConfig/nameservers");
    let path = path.child("dnsConfig").child("nameservers");
    if policy == "None" && servers.is_empty() {
        errors.required(
            &path,
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    for (index, server) in servers.iter().enumerate() {
        let text = server.as_str().unwrap_or("");
        if text.parse::<std::net::IpAddr>().is_err() {
            errors.invalid(
                &path.index(index),
                text,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
}

fn validate_numbers(spec: &Value, path: &Path, errors: &mut Errors) {
    if let Some(seconds) = spec.int_at("/activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.invalid(
            &path.child("activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        validate_id(
            spec.int_at(&format!("/securityContext/{field}")),
            &path.child("securityContext").child(field),
            errors,
        );
    }
}

fn validate_id(id: Option<i64>, path: &Path, errors: &mut Errors) {
    if let Some(id) = id
        && !(0..=i64::from(i32::MAX)).contains(&id)
    {
        errors.invalid(path, id, "must be between 0 and 2147483647, inclusive");
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors_of(mut pod: Value) -> Vec<String> {
        crate::kinds::pod::defaults::default_pod(&mut pod);
        let mut errors = Errors::default();
        validate_spec(&pod["spec"], &Path::new("spec"), &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_mistake_is_named_with_its_path() {
        let container = |extra: Value| {
            let mut container = json!({"name": "c", "image": "i"});
            for (key, value) in extra.as_object().unwrap() {
                container[key] = value.clone();
            }
            json!({"spec": {"containers": [container]}})
        };
        for (pod, expected) in [
            (
                json!({"spec": {"containers": []}}),
                "spec.containers: Required value",
            ),
            (
                json!({"spec": {"containers": [{"name": "c"}]}}),
                "spec.containers[0].image: Required value",
            ),
            (
                json!({"spec": {"containers": [{"image": "c"}]}}),
                "spec.containers[0].name: Required value",
            ),
            (
                json!({"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}}),
                "spec.containers[1].name: Duplicate value: \"c\"",
            ),
            (
                container(json!({"imagePullPolicy": "Sometimes"})),
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ),
            (
                container(json!({"ports": [{"containerPort": 70000}]})),
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                container(json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}]})),
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            ),
            (
                container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                container(json!({"livenessProbe": {}})),
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            ),
            (
                json!({"spec": {"restartPolicy": "x", "containers": [{"name": "c", "image": "i"}]}}),
                "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}], "containers": [{"name": "c", "image": "i"}]}}),
                "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
            ),
        ] {
            assert_eq!(errors_of(pod.clone()), [expected], "{pod}");
        }
        assert!(errors_of(container(json!({}))).is_empty());
    }
}
