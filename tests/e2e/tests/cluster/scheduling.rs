//! Why a pod waits.

use anyhow::Result;
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
    let yaml = shell_pod("picky", "exec sleep 100000")
        .replace("spec:", "spec:\n  nodeSelector: {disk: quick}");
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
    cluster
        .kubectl
        .run(&["label", "nodes", "--all", "disk-"])
        .map(drop)
}
