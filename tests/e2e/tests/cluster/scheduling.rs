//! Why a pod waits, and for what it is made.

use anyhow::{Result, ensure};
use hull_e2e::cluster::Cluster;

use crate::{Scenario, pods::shell_pod};

pub const ALL: &[Scenario] = &[
    (
        "node_pod_that_fits_no_node_says_which_filter_refused",
        fits_no_node,
    ),
    (
        "node_pod_waits_for_a_label_and_is_then_placed",
        waits_for_label,
    ),
    (
        "node_runtime_class_that_is_not_there_yet_says_so",
        runtime_class_unimplemented,
    ),
];

fn fits_no_node(cluster: &mut Cluster) -> Result<()> {
    let yaml = shell_pod("giant", "exit 0").replace(
        "    image: busybox",
        "    image: busybox\n    resources: {requests: {memory: 900Gi}}",
    );
    cluster.kubectl.apply(&yaml)?;
    cluster.kubectl.event(
        "giant",
        "FailedScheduling",
        "0/1 nodes are available: 1 Insufficient memory",
    )?;
    cluster
        .kubectl
        .pod_until("giant", "the condition", 10, |pod| {
            let conditions = pod["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let said = conditions
                .iter()
                .any(|c| c["type"] == "PodScheduled" && c["reason"] == "Unschedulable");
            if said {
                Ok(())
            } else {
                Err(pod["status"].to_string())
            }
        })?;
    cluster.kubectl.delete_pod("giant")
}

fn waits_for_label(cluster: &mut Cluster) -> Result<()> {
    let yaml = shell_pod("picky", "exec sleep 100000").replace(
        "spec:",
        "spec:\n  nodeSelector: {disk: quick}\n  runtimeClassName: e2e-vm",
    );
    cluster.kubectl.apply(&runtime_class("e2e-vm", "microvm"))?;
    cluster.kubectl.apply(&yaml)?;
    cluster.kubectl.event(
        "picky",
        "FailedScheduling",
        "didn't match Pod's node affinity/selector",
    )?;
    cluster
        .kubectl
        .run(&["label", "nodes", "--all", "disk=quick"])?;
    cluster.kubectl.pod_ready("picky")?;
    cluster.kubectl.delete_pod("picky")?;
    cluster.kubectl.run(&["delete", "runtimeclass", "e2e-vm"])?;
    cluster
        .kubectl
        .run(&["label", "nodes", "--all", "disk-"])
        .map(drop)
}

fn runtime_class(name: &str, handler: &str) -> String {
    format!(
        "---\n{{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {{name: {name}}}, handler: {handler}}}"
    )
}

fn runtime_class_unimplemented(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.traces()?;
    let yaml = shell_pod("native", "exec sleep 100000")
        .replace("spec:", "spec:\n  runtimeClassName: e2e-native");
    cluster
        .kubectl
        .apply(&runtime_class("e2e-native", "native"))?;
    cluster.kubectl.apply(&yaml)?;
    let reason = "FailedCreatePodSandBox";
    let event = cluster.kubectl.event("native", reason, "unimplemented")?;
    ensure!(event.contains("runtime handler \"native\""), "{event}");
    cluster.kubectl.delete_pod("native")?;
    cluster
        .kubectl
        .run(&["delete", "runtimeclass", "e2e-native"])?;
    cluster.wait_for_no_more(&before)
}
