//! What an absent field of a pod means, written out (Kubernetes: pkg/apis/core/v1/defaults.go).

use serde_json::{Map, Value, json};

use crate::{
    ObjectExt,
    object::{default_text, default_to},
};

pub(super) const TERMINATION_GRACE_SECONDS: i64 = 30;
/// Mode 0644 in decimal, as JSON has it.
const FILE_MODE: i64 = 0o644;
const TOKEN_EXPIRATION_SECONDS: i64 = 3600;
/// How long a pod stays on a node that is not ready or cannot be reached.
const NODE_LOST_TOLERATION_SECONDS: i64 = 300;

type Object = Map<String, Value>;

pub(super) fn default_pod(pod: &mut Value) {
    default_spec(pod.map_mut(&["spec"]), true);
}

/// Defaults of `spec.template` of a workload.
pub(crate) fn default_template(workload: &mut Value) {
    default_pod_template(workload.map_mut(&["spec", "template"]));
}

/// Defaults of a pod template.
pub(crate) fn default_pod_template(template: &mut Object) {
    for part in ["metadata", "spec"] {
        let slot = template.entry(part).or_insert(Value::Null);
        if slot.is_null() {
            *slot = json!({});
        }
    }
    if let Some(spec) = object(template, "spec") {
        default_spec(spec, false);
    }
}

fn default_spec(spec: &mut Object, is_pod: bool) {
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "schedulerName", "default-scheduler");
    default_to(
        spec,
        "terminationGracePeriodSeconds",
        TERMINATION_GRACE_SECONDS,
    );
    default_to(spec, "securityContext", json!({}));
    if is_pod {
        default_to(spec, "enableServiceLinks", true);
    }
    let host_network = spec
        .get("hostNetwork")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in objects(spec, list) {
            default_container(container, host_network, is_pod);
        }
    }
    if is_pod {
        super::pod_resources::default_requests(spec);
    }
    for volume in objects(spec, "volumes") {
        default_volume(volume);
    }
    if let Some(account) = spec.get("serviceAccountName").filter(|v| *v != "").cloned() {
        default_to(spec, "serviceAccount", account);
    } else if let Some(account) = spec.get("serviceAccount").filter(|v| *v != "").cloned() {
        spec.insert("serviceAccountName".to_string(), account);
    }
}

/// The objects of a list field.
fn objects<'a>(map: &'a mut Object, field: &str) -> impl Iterator<Item = &'a mut Object> {
    map.get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn object<'a>(map: &'a mut Object, field: &str) -> Option<&'a mut Object> {
    map.get_mut(field).and_then(Value::as_object_mut)
}

fn default_container(container: &mut Object, host_network: bool, is_pod: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or("");
    let policy = pull_policy(image);
    default_text(container, "imagePullPolicy", policy);
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    default_to(container, "resources", json!({}));
    if is_pod {
        default_requests(container);
    }
    for port in objects(container, "ports") {
        default_text(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            default_to(port, "hostPort", number);
        }
    }
    for variable in objects(container, "env") {
        if let Some(reference) = object(variable, "valueFrom").and_then(|f| object(f, "fieldRef")) {
            default_text(reference, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = object(container, probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = object(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(get) = object(lifecycle, hook).and_then(|hook| object(hook, "httpGet")) {
                default_http_get(get);
            }
        }
    }
}

/// `Always` for `:latest` or no tag at all, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    // A ':' before the last '/' belongs to the registry's port.
    let last = image.rsplit('/').next().unwrap_or("");
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// A limit without a request is a request too.
fn default_requests(container: &mut Object) {
    let Some(resources) = object(container, "resources") else {
        return;
    };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = resources.entry("requests").or_insert(json!({}));
    if let Value::Object(requests) = requests {
        for (name, amount) in limits {
            default_to(requests, &name, amount);
        }
    }
}

fn default_probe(probe: &mut Object) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        // 0 is "not set" in the version's type.
        if probe.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
            probe.insert(field.to_string(), Value::from(value));
        }
    }
    if let Some(get) = object(probe, "httpGet") {
        default_http_get(get);
    }
    if let Some(grpc) = object(probe, "grpc") {
        default_to(grpc, "service", "");
    }
}

fn default_http_get(get: &mut Object) {
    default_text(get, "path", "/");
    default_text(get, "scheme", "HTTP");
}

fn default_volume(volume: &mut Object) {
    let sources = volume.keys().filter(|key| *key != "name").count();
    if sources == 0 {
        volume.insert("emptyDir".to_string(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = object(volume, source) {
            default_to(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(path) = object(volume, "hostPath") {
        default_to(path, "type", "");
    }
    if let Some(downward) = object(volume, "downwardAPI") {
        default_downward_items(downward);
    }
    if let Some(projected) = object(volume, "projected") {
        for source in objects(projected, "sources") {
            if let Some(token) = object(source, "serviceAccountToken") {
                default_to(token, "expirationSeconds", TOKEN_EXPIRATION_SECONDS);
            }
            if let Some(downward) = object(source, "downwardAPI") {
                default_downward_items(downward);
            }
        }
    }
}

fn default_downward_items(source: &mut Object) {
    for item in objects(source, "items") {
        if let Some(reference) = object(item, "fieldRef") {
            default_text(reference, "apiVersion", "v1");
        }
    }
}

/// Adds the tolerations that every pod gets: five minutes on a node that is not ready or
/// cannot be reached.
pub fn default_tolerations(pod: &mut Value) {
    let mut tolerations = pod.list_at("/spec/tolerations").to_vec();
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = tolerations.iter().any(|toleration| {
            let wanted = toleration.str_at("/key");
            let effect = toleration.str_at("/effect");
            (wanted == key || wanted.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            tolerations.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": NODE_LOST_TOLERATION_SECONDS,
            }));
        }
    }
    pod.set_at(&["spec", "tolerations"], Value::Array(tolerations));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_the_pull_policy() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_small_pod_gets_the_defaults() {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "nginx",
            "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}},
            "livenessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}]}});
        default_pod(&mut pod);
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["resources"]["requests"]["cpu"], "1");
        assert_eq!(
            container["livenessProbe"]["httpGet"],
            json!({"port": 80, "path": "/", "scheme": "HTTP"})
        );
        assert_eq!(container["livenessProbe"]["periodSeconds"], 10);
        assert_eq!(
            pod["spec"]["volumes"][0],
            json!({"name": "v", "emptyDir": {}})
        );
        assert_eq!(pod["spec"]["restartPolicy"], "Always");
        let once = pod.clone();
        default_pod(&mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn node_loss_is_tolerated_once() {
        let mut pod = json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]}});
        default_tolerations(&mut pod);
        default_tolerations(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    }
}
