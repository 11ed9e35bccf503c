//! The Node object and its status: what the machine is, what it has, and how it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hull_cri_api::v1 as cri;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::config::{KUBELET_VERSION, NodeConfig};
use crate::events::seconds;
use crate::eviction::Condition;
use crate::pod_network;
use crate::stats::node_usage::{Filesystem, meminfo};

/// Images listed in the status at most (kubelet's default).
const MAX_IMAGES: usize = 50;
/// Names listed of each image at most.
const MAX_IMAGE_NAMES: usize = 5;

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeResources {
    /// Milli-cores.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Bytes of the filesystem that holds the agent's directory.
    pub storage_bytes: i64,
}

impl NodeResources {
    /// Reads the machine.
    pub fn read(root_dir: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let storage = Filesystem::of(root_dir).map_or(0, |found| found.capacity_bytes);
        NodeResources {
            cpu_milli: i64::try_from(cpus).unwrap_or(1) * 1000,
            memory_bytes: meminfo("MemTotal").unwrap_or(0),
            storage_bytes: i64::try_from(storage).unwrap_or(i64::MAX),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn os_image() -> String {
    let text = read("/etc/os-release");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// Kubernetes' name of the machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The labels every Node has, with the configured ones.
pub fn labels(config: &NodeConfig) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.insert(key.into(), value.into());
    }
    labels
}

/// The Node to register.
pub fn node(config: &NodeConfig) -> Node {
    let pod_cidrs = pod_network::texts(&config.pod_cidrs);
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config)),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            pod_cidr: pod_cidrs.first().cloned(),
            pod_cidrs: (!pod_cidrs.is_empty()).then_some(pod_cidrs),
            ..Default::default()
        }),
        status: None,
    }
}

/// What the runtime says of itself.
#[derive(Debug, Clone, Default)]
pub struct RuntimeView {
    /// Status, or why it could not be had.
    pub status: Option<Result<cri::StatusResponse, String>>,
    /// Version, once known.
    pub version: Option<cri::VersionResponse>,
    /// Images on the node.
    pub images: Vec<cri::Image>,
    /// Why pods cannot have a network yet, whatever the runtime says.
    pub no_network: Option<String>,
}

/// The node's status; conditions that did not change keep their times from `old`.
pub fn status(
    config: &NodeConfig,
    resources: &NodeResources,
    runtime: &RuntimeView,
    held: &BTreeSet<Condition>,
    old: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let quantities: BTreeMap<String, Quantity> = [
        ("cpu", format!("{}", resources.cpu_milli / 1000)),
        ("memory", format!("{}Ki", resources.memory_bytes / 1024)),
        ("pods", config.max_pods.to_string()),
        (
            "ephemeral-storage",
            format!("{}Ki", resources.storage_bytes / 1024),
        ),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .collect();
    let address = |type_: &str, address: String| NodeAddress {
        type_: type_.into(),
        address,
    };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.node_ip.to_string()),
            address("Hostname", config.node_name.clone()),
        ]),
        capacity: Some(quantities.clone()),
        allocatable: Some(quantities),
        conditions: Some(conditions(held, runtime, old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(config.listen.port()),
            }),
        }),
        node_info: Some(system_info(runtime)),
        runtime_handlers: handlers(runtime),
        images: Some(images(&runtime.images)),
        ..Default::default()
    }
}

fn system_info(runtime: &RuntimeView) -> NodeSystemInfo {
    let version = match &runtime.version {
        Some(version) => {
            // The shim is this product's; another runtime names itself.
            let name = if version.runtime_name == "hull-shim" {
                "hull"
            } else {
                &version.runtime_name
            };
            format!("{name}://{}", version.runtime_version)
        }
        None => "hull://unknown".into(),
    };
    NodeSystemInfo {
        architecture: architecture().into(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: version,
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.into(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".into(),
        os_image: os_image(),
        system_uuid: read("/sys/class/dmi/id/product_uuid"),
        swap: None,
    }
}

fn handlers(runtime: &RuntimeView) -> Option<Vec<NodeRuntimeHandler>> {
    let Some(Ok(status)) = &runtime.status else {
        return None;
    };
    let handlers: Vec<NodeRuntimeHandler> = status
        .runtime_handlers
        .iter()
        .map(|handler| NodeRuntimeHandler {
            name: Some(handler.name.clone()),
            features: handler
                .features
                .as_ref()
                .map(|features| NodeRuntimeHandlerFeatures {
                    recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
                    user_namespaces: Some(features.user_namespaces),
                }),
        })
        .collect();
    (!handlers.is_empty()).then_some(handlers)
}

fn images(images: &[cri::Image]) -> Vec<ContainerImage> {
    let mut images: Vec<&cri::Image> = images.iter().collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    images
        .into_iter()
        .take(MAX_IMAGES)
        .map(|image| ContainerImage {
            names: Some(
                image
                    .repo_digests
                    .iter()
                    .chain(&image.repo_tags)
                    .take(MAX_IMAGE_NAMES)
                    .cloned()
                    .collect(),
            ),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
}

struct Verdict {
    kind: &'static str,
    status: bool,
    reason: String,
    message: String,
}

fn verdict(kind: &'static str, status: bool, reason: &str, message: &str) -> Verdict {
    Verdict {
        kind,
        status,
        reason: reason.into(),
        message: message.into(),
    }
}

fn conditions(
    held: &BTreeSet<Condition>,
    runtime: &RuntimeView,
    old: Option<&NodeStatus>,
    now: Timestamp,
) -> Vec<NodeCondition> {
    let old: Vec<NodeCondition> = old
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let mine = [
        pressure(Condition::Memory, held),
        pressure(Condition::Disk, held),
        pressure(Condition::ProcessIds, held),
        ready(runtime),
    ];
    let mut conditions: Vec<NodeCondition> = old
        .iter()
        .filter(|condition| !mine.iter().any(|verdict| verdict.kind == condition.type_))
        .cloned()
        .collect();
    conditions.extend(mine.into_iter().map(|verdict| {
        let status = if verdict.status { "True" } else { "False" };
        let same = old
            .iter()
            .find(|c| c.type_ == verdict.kind && c.status == status);
        NodeCondition {
            type_: verdict.kind.into(),
            status: status.into(),
            reason: Some(verdict.reason),
            message: Some(verdict.message),
            last_heartbeat_time: Some(seconds(now)),
            last_transition_time: same
                .and_then(|condition| condition.last_transition_time.clone())
                .or_else(|| Some(seconds(now))),
        }
    }));
    conditions
}

/// What the eviction manager found, in kubelet's words.
fn pressure(condition: Condition, held: &BTreeSet<Condition>) -> Verdict {
    let (yes, no, what) = match condition {
        Condition::Memory => (
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            "memory available",
        ),
        Condition::Disk => ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure", ""),
        Condition::ProcessIds => (
            "KubeletHasInsufficientPID",
            "KubeletHasSufficientPID",
            "PID available",
        ),
    };
    let short = held.contains(&condition);
    let message = match (condition, short) {
        (Condition::Disk, true) => "kubelet has disk pressure".into(),
        (Condition::Disk, false) => "kubelet has no disk pressure".into(),
        (_, true) => format!("kubelet has insufficient {what}"),
        (_, false) => format!("kubelet has sufficient {what}"),
    };
    verdict(
        condition.kind(),
        short,
        if short { yes } else { no },
        &message,
    )
}

/// Ready when the runtime answers and says that it and its network are ready; else its reasons.
fn ready(runtime: &RuntimeView) -> Verdict {
    let kind = "Ready";
    let not_ready = |message: &str| verdict(kind, false, "KubeletNotReady", message);
    match &runtime.status {
        None => not_ready("container runtime status check has not completed yet"),
        Some(Err(error)) => not_ready(&format!("container runtime is down: {error}")),
        Some(Ok(response)) => {
            let conditions = response.status.clone().unwrap_or_default().conditions;
            let mut failures: Vec<String> = ["RuntimeReady", "NetworkReady"]
                .iter()
                .filter_map(
                    |wanted| match conditions.iter().find(|c| c.r#type == *wanted) {
                        Some(condition) if condition.status => None,
                        Some(condition) => Some(format!(
                            "container runtime {}: {wanted}=false reason:{} message:{}",
                            if *wanted == "NetworkReady" {
                                "network not ready"
                            } else {
                                "not ready"
                            },
                            condition.reason,
                            condition.message
                        )),
                        None => Some(format!("container runtime reports no {wanted} condition")),
                    },
                )
                .collect();
            if let Some(reason) = &runtime.no_network {
                failures.push(format!("network not ready: {reason}"));
            }
            if failures.is_empty() {
                verdict(
                    kind,
                    true,
                    "KubeletReady",
                    "kubelet is posting ready status",
                )
            } else {
                not_ready(&failures.join(", "))
            }
        }
    }
}

/// Whether two statuses differ in more than heartbeat times.
pub fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let strip = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        // Written by others.
        status.volumes_attached = None;
        status.volumes_in_use = None;
        status.phase = None;
        status.images = status.images.filter(|images| !images.is_empty());
        status
    };
    strip(old) != strip(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(conditions: &[(&str, bool)]) -> RuntimeView {
        let conditions = conditions
            .iter()
            .map(|(kind, status)| cri::RuntimeCondition {
                r#type: (*kind).into(),
                status: *status,
                reason: "NoCni".into(),
                message: "no conflist".into(),
            })
            .collect();
        RuntimeView {
            status: Some(Ok(cri::StatusResponse {
                status: Some(cri::RuntimeStatus { conditions }),
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    fn ready_of(view: &RuntimeView, old: Option<&NodeStatus>, now: i64) -> NodeCondition {
        let config = NodeConfig::new("n", "192.0.2.1".parse().unwrap());
        let resources = NodeResources {
            cpu_milli: 2000,
            memory_bytes: 1 << 30,
            storage_bytes: 1,
        };
        let status = status(
            &config,
            &resources,
            view,
            &BTreeSet::new(),
            old,
            Timestamp::from_second(now).unwrap(),
        );
        status
            .conditions
            .unwrap()
            .into_iter()
            .find(|c| c.type_ == "Ready")
            .unwrap()
    }

    #[test]
    fn ready_follows_the_runtime_and_says_why_not() {
        let both = runtime(&[("RuntimeReady", true), ("NetworkReady", true)]);
        let ready = ready_of(&both, None, 100);
        assert_eq!(ready.status, "True");
        let no_network = ready_of(
            &runtime(&[("RuntimeReady", true), ("NetworkReady", false)]),
            None,
            1,
        );
        assert_eq!(no_network.status, "False");
        assert!(
            no_network
                .message
                .unwrap()
                .contains("reason:NoCni message:no conflist")
        );
        let down = RuntimeView {
            status: Some(Err("no socket".into())),
            ..Default::default()
        };
        assert!(
            ready_of(&down, None, 1)
                .message
                .unwrap()
                .contains("no socket")
        );
        let old = NodeStatus {
            conditions: Some(vec![ready.clone()]),
            ..Default::default()
        };
        let later = ready_of(&both, Some(&old), 200);
        assert_eq!(later.last_transition_time, ready.last_transition_time);
        assert_ne!(later.last_heartbeat_time, ready.last_heartbeat_time);
    }

    #[test]
    fn heartbeats_alone_are_no_difference() {
        let config = NodeConfig::new("n", "192.0.2.1".parse().unwrap());
        let resources = NodeResources {
            cpu_milli: 2000,
            memory_bytes: 1 << 30,
            storage_bytes: 1,
        };
        let view = runtime(&[("RuntimeReady", true), ("NetworkReady", true)]);
        let at = |second| Timestamp::from_second(second).unwrap();
        let held = BTreeSet::from([Condition::Memory]);
        let first = status(&config, &resources, &view, &held, None, at(1));
        let pressing = first.conditions.as_ref().unwrap().iter();
        let pressing = pressing.filter(|c| c.status == "True" && c.type_ != "Ready");
        assert_eq!(
            pressing.map(|c| c.type_.as_str()).collect::<Vec<_>>(),
            ["MemoryPressure"]
        );
        let second = status(&config, &resources, &view, &held, Some(&first), at(50));
        assert!(!differs(&first, &second));
        let down = RuntimeView {
            status: Some(Err("gone".into())),
            ..Default::default()
        };
        assert!(differs(
            &first,
            &status(&config, &resources, &down, &held, Some(&first), at(60))
        ));
    }
}
