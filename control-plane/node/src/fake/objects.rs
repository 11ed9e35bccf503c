//! The objects that fake nodes write.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use super::{FAKE_LABEL, FakeNodesConfig};
use crate::config::KUBELET_VERSION;

fn now() -> String {
    // Whole seconds, as Kubernetes' times are.
    let now = Timestamp::now().as_second();
    Timestamp::from_second(now).unwrap_or_default().to_string()
}

/// A 10.0.0.0/8 address that depends on the number alone.
fn address(number: u64) -> String {
    let [_, a, b, c] = u32::try_from(number % (1 << 24)).unwrap_or(0).to_be_bytes();
    format!("10.{a}.{b}.{c}")
}

/// The address of a node: the upper half of the range.
fn node_address(number: usize) -> String {
    address((1 << 23) + u64::try_from(number).unwrap_or(0))
}

/// The Node.
pub(super) fn node(config: &FakeNodesConfig, number: usize) -> Value {
    let name = config.name(number);
    let zone = format!("zone-{}", number % config.zones.max(1));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {
            FAKE_LABEL: "true",
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/region": "fake",
            "topology.kubernetes.io/zone": zone,
        }},
        "spec": {},
    })
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    let now = now();
    json!({
        "type": kind, "status": status, "reason": reason, "message": "fake",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    })
}

/// The Node's status.
pub(super) fn node_status(config: &FakeNodesConfig, number: usize) -> Value {
    let resources = json!({
        "cpu": config.cpu, "memory": config.memory, "pods": config.pods.to_string(),
        "ephemeral-storage": "500Gi",
    });
    json!({
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            {"type": "InternalIP", "address": node_address(number)},
            {"type": "Hostname", "address": config.name(number)},
        ],
        "nodeInfo": {
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "fake://1",
            "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": KUBELET_VERSION,
            "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
        },
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            condition("Ready", "True", "KubeletReady"),
        ],
    })
}

/// The Lease; it ends after four missed renewals.
pub(super) fn lease(config: &FakeNodesConfig, number: usize) -> Value {
    let name = config.name(number);
    let seconds = config.lease_interval.as_secs().max(1) * 4;
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": super::heartbeat::LEASE_NAMESPACE},
        "spec": {
            "holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": renew_time(),
        },
    })
}

/// `spec.renewTime` of now: microseconds.
pub(super) fn renew_time() -> String {
    Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
        .to_string()
}

fn container_status(container: &Container, state: &Value, is_running: bool) -> Value {
    json!({
        "name": container.name,
        "image": container.image,
        "imageID": "fake",
        "containerID": format!("fake://{}", container.name),
        "ready": is_running,
        "started": is_running,
        "restartCount": 0,
        "state": state,
    })
}

fn pod_condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "lastTransitionTime": now()})
}

fn status(pod: &Pod, phase: &str, state: &Value) -> Value {
    let is_running = phase == "Running";
    let ready = if is_running { "True" } else { "False" };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let statuses: Vec<Value> = containers
        .map(|container| container_status(container, state, is_running))
        .collect();
    json!({
        "phase": phase,
        "conditions": [
            pod_condition("PodReadyToStartContainers", ready),
            pod_condition("Initialized", "True"),
            pod_condition("Ready", ready),
            pod_condition("ContainersReady", ready),
            pod_condition("PodScheduled", "True"),
        ],
        "containerStatuses": statuses,
    })
}

/// The status of a pod that has just started; `serial` gives its address.
pub(super) fn running(pod: &Pod, node: usize, serial: u64) -> Value {
    let now = now();
    let mut status = status(pod, "Running", &json!({"running": {"startedAt": now}}));
    let host = node_address(node);
    let on_host = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    // The lower half of the range is the pods'.
    let ip = if on_host {
        host.clone()
    } else {
        address(serial % (1 << 23))
    };
    status["startTime"] = now.into();
    status["hostIP"] = host.clone().into();
    status["hostIPs"] = json!([{"ip": host}]);
    status["podIP"] = ip.clone().into();
    status["podIPs"] = json!([{"ip": ip}]);
    status
}

/// The status of a pod that has done its work.
pub(super) fn succeeded(pod: &Pod) -> Value {
    let ended = json!({"exitCode": 0, "reason": "Completed", "finishedAt": now()});
    status(pod, "Succeeded", &json!({"terminated": ended}))
}
