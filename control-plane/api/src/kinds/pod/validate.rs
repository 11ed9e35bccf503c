//! Rules of a pod's spec (Kubernetes: pkg/apis/core/validation).

use serde_json::{Map, Value};

use super::volumes;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    quantity::Quantity,
};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

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
    if !spec.list_at("/ephemeralContainers").is_empty() {
        errors.forbidden(
            &path.child("ephemeralContainers"),
            "cannot be set on create",
        );
    }
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
    errors.check_non_negative(
        &path.child("terminationGracePeriodSeconds"),
        spec.int_at("/terminationGracePeriodSeconds"),
    );
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

fn validate_container(container: &Value, path: &Path, volumes: &[&str], errors: &mut Errors) {
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

fn validate_ports(container: &Value, path: &Path, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in container.list_at("/ports").iter().enumerate() {
        let path = path.index(index);
        let name = port.str_at("/name");
        if !name.is_empty() {
            for why in names::port_name(name) {
                errors.invalid(&path.child("name"), name, why);
            }
            if seen.contains(&name) {
                errors.duplicate(&path.child("name"), name);
            }
            seen.push(name);
        }
        match port.int_at("/containerPort").unwrap_or(0) {
            0 => errors.required(&path.child("containerPort"), ""),
            number => check_port(number, &path.child("containerPort"), errors),
        }
        match port.int_at("/hostPort").unwrap_or(0) {
            0 => {}
            number => check_port(number, &path.child("hostPort"), errors),
        }
        match port.str_at("/protocol") {
            "" => errors.required(&path.child("protocol"), ""),
            protocol => errors.check_supported(&path.child("protocol"), protocol, PROTOCOLS),
        }
    }
}

fn check_port(number: i64, path: &Path, errors: &mut Errors) {
    if let Some(why) = names::port_number(number) {
        errors.invalid(path, number, why);
    }
}

/// Two containers cannot take the same port of the host.
fn validate_ports_unique(containers: &[Value], path: &Path, errors: &mut Errors) {
    let mut seen: Vec<(i64, &str, &str)> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        for (at, port) in container.list_at("/ports").iter().enumerate() {
            let number = port.int_at("/hostPort").unwrap_or(0);
            let key = (number, port.str_at("/protocol"), port.str_at("/hostIP"));
            if number != 0 && seen.contains(&key) {
                errors.duplicate(
                    &path.index(index).child("ports").index(at).child("hostPort"),
                    format!("{}/{}/{}", key.1, key.2, key.0),
                );
            }
            seen.push(key);
        }
    }
}

fn validate_env(container: &Value, path: &Path, errors: &mut Errors) {
    for (index, variable) in container.list_at("/env").iter().enumerate() {
        let path = path.child("env").index(index);
        let name = variable.str_at("/name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            for why in names::env_name(name) {
                errors.invalid(&path.child("name"), name, why);
            }
        }
        let Some(source) = variable.get("valueFrom") else {
            continue;
        };
        let path = path.child("valueFrom");
        let count = source.as_object().map_or(0, Map::len);
        if !variable.str_at("/value").is_empty() && count > 0 {
            errors.invalid(&path, "", "may not be specified when `value` is not empty");
        } else if count == 0 {
            errors.invalid(&path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`");
        } else if count > 1 {
            errors.invalid(
                &path,
                "",
                "may not have more than one field specified at a time",
            );
        }
        for reference in ["configMapKeyRef", "secretKeyRef"] {
            if source.get(reference).is_some()
                && source.str_at(&format!("/{reference}/key")).is_empty()
            {
                errors.required(&path.child(reference).child("key"), "");
            }
        }
        if source.get("fieldRef").is_some() && source.str_at("/fieldRef/fieldPath").is_empty() {
            errors.required(&path.child("fieldRef").child("fieldPath"), "");
        }
    }
    for (index, source) in container.list_at("/envFrom").iter().enumerate() {
        let path = path.child("envFrom").index(index);
        let count = ["configMapRef", "secretRef"]
            .iter()
            .filter(|reference| source.get(**reference).is_some())
            .count();
        if count != 1 {
            errors.invalid(
                &path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            );
        }
    }
}

fn validate_mounts(container: &Value, path: &Path, volumes: &[&str], errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, mount) in container.list_at("/volumeMounts").iter().enumerate() {
        let path = path.child("volumeMounts").index(index);
        match mount.str_at("/name") {
            "" => errors.required(&path.child("name"), ""),
            name if !volumes.contains(&name) => errors.not_found(&path.child("name"), name),
            _ => {}
        }
        let target = mount.str_at("/mountPath");
        if target.is_empty() {
            errors.required(&path.child("mountPath"), "");
        } else if seen.contains(&target) {
            errors.invalid(&path.child("mountPath"), target, "must be unique");
        }
        seen.push(target);
        let sub_path = mount.str_at("/subPath");
        if !sub_path.is_empty() {
            volumes::validate_relative(sub_path, &path.child("subPath"), errors);
        }
    }
}

/// Amounts of resources: known names, none below zero.
pub(crate) fn validate_resource_list(
    list: Option<&Map<String, Value>>,
    path: &Path,
    errors: &mut Errors,
) {
    for (name, amount) in list.into_iter().flatten() {
        let path = path.key(name);
        for why in names::qualified_name(name) {
            errors.invalid(&path, name.as_str(), why);
        }
        let text = amount.as_str().unwrap_or("");
        if let Ok(quantity) = text.parse::<Quantity>() {
            if quantity.is_negative() {
                errors.invalid(&path, text, "must be greater than or equal to 0");
            }
            if is_extended(name) && !quantity.is_integer() {
                errors.invalid(&path, text, "must be an integer");
            }
        }
    }
}

/// Devices and such, counted in whole units.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

fn validate_resources(container: &Value, path: &Path, errors: &mut Errors) {
    for list in ["limits", "requests"] {
        let amounts = container.map_at(&format!("/resources/{list}"));
        validate_resource_list(amounts, &path.child(list), errors);
        for (name, _) in amounts.into_iter().flatten() {
            let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
            if !standard && !name.starts_with("hugepages-") && !name.contains('/') {
                errors.invalid(
                    &path.child(list).key(name),
                    name.as_str(),
                    "must be a standard resource type or fully qualified",
                );
            }
        }
    }
    let Some(requests) = container.map_at("/resources/requests") else {
        return;
    };
    for (name, request) in requests {
        let limit = container
            .map_at("/resources/limits")
            .and_then(|limits| limits.get(name));
        let parse = |value: &Value| {
            value
                .as_str()
                .and_then(|text| text.parse::<Quantity>().ok())
        };
        let (Some(request_amount), Some(limit_amount)) = (parse(request), limit.and_then(parse))
        else {
            continue;
        };
        if request_amount > limit_amount {
            errors.invalid(
                &path.child("requests"),
                request.clone(),
                format!("must be less than or equal to {name} limit of {limit_amount}"),
            );
        }
    }
}

fn validate_probe(probe: &Value, name: &str, path: &Path, errors: &mut Errors) {
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
}

fn validate_handler(handler: &Value, allowed: &[&str], path: &Path, errors: &mut Errors) {
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
    if handler.get("httpGet").is_some() {
        let scheme = handler.str_at("/httpGet/scheme");
        errors.check_supported(
            &path.child("httpGet").child("scheme"),
            scheme,
            &["HTTP", "HTTPS"],
        );
    }
}

/// Checks tolerations.
pub(crate) fn validate_tolerations(tolerations: &[Value], path: &Path, errors: &mut Errors) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, operator) = (toleration.str_at("/key"), toleration.str_at("/operator"));
        if !key.is_empty() {
            for why in names::qualified_name(key) {
                errors.invalid(&path.child("key"), key, why);
            }
        } else if operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        let effect = toleration.str_at("/effect");
        if toleration.get("tolerationSeconds").is_some() && effect != "NoExecute" {
            errors.invalid(
                &path.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "" | "Equal" => {
                let value = toleration.str_at("/value");
                for why in names::label_value(value) {
                    errors.invalid(&path.child("operator"), value, why);
                }
            }
            "Exists" => {
                if !toleration.str_at("/value").is_empty() {
                    errors.invalid(
                        &path.child("operator"),
                        toleration.clone(),
                        "value must be empty when `operator` is 'Exists'",
                    );
                }
            }
            other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            errors.check_supported(
                &path.child("effect"),
                effect,
                &["NoExecute", "NoSchedule", "PreferNoSchedule"],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors_of(mut pod: Value) -> Vec<String> {
        super::super::defaults::default_pod(&mut pod);
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
