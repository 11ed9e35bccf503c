//! What is kept of a watched object: not who owns its fields, which is half of many an object and
//! which no client inside the control plane reads; an update without it leaves it as it is. Of a
//! pod not what only its node acts upon: the informers' pods are patched, never written whole.

use std::any::Any;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::Resource;

/// Drops what nobody here reads, and the spare room that reading left in texts and lists.
pub fn trim<K: Resource + Clone + 'static>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    let any: &mut dyn Any = object;
    if let Some(spec) = any.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) {
        trim_spec(spec);
    }
    // A copy is as large as it has to be.
    *object = object.clone();
}

/// Of the volumes those stay that are claims or make one, of the containers what they are and
/// what they need.
fn trim_spec(spec: &mut PodSpec) {
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|volume| {
            volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
        });
    }
    spec.volumes.take_if(|volumes| volumes.is_empty());
    let containers = spec.containers.iter_mut();
    for container in containers.chain(spec.init_containers.iter_mut().flatten()) {
        trim_container(container);
    }
}

fn trim_container(container: &mut Container) {
    container.args = None;
    container.command = None;
    container.env = None;
    container.env_from = None;
    container.lifecycle = None;
    container.liveness_probe = None;
    container.readiness_probe = None;
    container.security_context = None;
    container.startup_probe = None;
    container.volume_devices = None;
    container.volume_mounts = None;
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Volume};
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn of_most_kinds_only_managed_fields_and_spare_room_go() {
        let plain = json!({"metadata": {"name": "n", "labels": {"a": "b"}},
            "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
        let mut full = plain.clone();
        full["metadata"]["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:spec": {}}}]);
        let mut node: Node = from_value(full).unwrap();
        node.metadata.name.as_mut().unwrap().reserve(100);
        trim(&mut node);
        assert_eq!(node, from_value(plain).unwrap());
        assert_eq!(node.metadata.name.unwrap().capacity(), 1);
    }

    #[test]
    fn of_a_pod_goes_what_only_its_node_acts_upon() {
        let ports = json!([{"name": "http", "containerPort": 80, "hostPort": 8080}]);
        let resources = json!({"requests": {"cpu": "1"}});
        let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "c"}});
        let made = json!({"name": "made", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        let kept = |name: &str| {
            json!({"name": name, "image": "i", "ports": ports, "resources": resources,
                "restartPolicy": "Always"})
        };
        let mut full = kept("c");
        for (field, value) in [
            ("args", json!(["1"])),
            ("command", json!(["sh"])),
            ("env", json!([{"name": "A", "value": "b"}])),
            ("envFrom", json!([{"configMapRef": {"name": "m"}}])),
            ("lifecycle", json!({"preStop": {"sleep": {"seconds": 1}}})),
            ("livenessProbe", json!({"httpGet": {"port": 80}})),
            ("readinessProbe", json!({"httpGet": {"port": 80}})),
            ("startupProbe", json!({"httpGet": {"port": 80}})),
            ("securityContext", json!({"runAsUser": 1})),
            (
                "volumeDevices",
                json!([{"name": "d", "devicePath": "/dev/x"}]),
            ),
            (
                "volumeMounts",
                json!([{"name": "token", "mountPath": "/t"}]),
            ),
        ] {
            full[field] = value;
        }
        let mut first = full.clone();
        first["name"] = json!("first");
        let spec = json!({"nodeName": "n", "containers": [full], "initContainers": [first],
            "volumes": [claim, {"name": "token", "emptyDir": {}}, made]});
        let mut pod: Pod = from_value(json!({"spec": spec})).unwrap();
        trim(&mut pod);
        let expected = json!({"nodeName": "n", "containers": [kept("c")],
            "initContainers": [kept("first")], "volumes": [claim, made]});
        assert_eq!(pod, from_value(json!({"spec": expected})).unwrap());

        pod.spec.as_mut().unwrap().volumes = Some(vec![Volume::default()]);
        trim(&mut pod);
        assert_eq!(pod.spec.unwrap().volumes, None);
    }
}
