//! kill -9 of any process: running pods go on, nothing is lost, nothing leaks.

use anyhow::{Context, Result, ensure};
use hull_e2e::{cluster::Cluster, wait};
use serde_json::Value;

use crate::{Scenario, pods::shell_pod};

pub const ALL: &[Scenario] = &[
    (
        "node_killed_shim_leaves_pods_running_and_adopts_them",
        killed_shim,
    ),
    (
        "node_killed_control_plane_leaves_pods_running_and_loses_nothing",
        killed_control_plane,
    ),
    (
        "node_killed_vmm_is_reported_and_its_pod_restarted",
        killed_vmm,
    ),
    (
        "node_pod_deleted_while_the_shim_is_dead_leaves_nothing",
        deleted_while_shim_is_dead,
    ),
];

const COUNTER: &str = "n=0; while :; do n=$((n+1)); echo count $n; sleep 1; done";

fn container_id(pod: &Value) -> &str {
    pod["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .unwrap_or("")
}

/// Every number from 1 to the last stands in the log exactly once, in order.
fn check_counter(log: &str) -> Result<u64> {
    let mut expected = 0;
    for line in log.lines() {
        expected += 1;
        ensure!(
            line == format!("count {expected}"),
            "line {expected} of the log is {line:?}"
        );
    }
    Ok(expected)
}

/// Waits until the pod has counted further than now.
fn counts_on(cluster: &Cluster, name: &str, past: u64) -> Result<u64> {
    wait::until("the pod to count on", 20, || {
        let count = check_counter(&cluster.kubectl.run(&["logs", name])?)?;
        Ok(if count > past {
            Ok(count)
        } else {
            Err(count.to_string())
        })
    })
}

fn killed_shim(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.traces()?;
    cluster.kubectl.apply(&shell_pod("survivor", COUNTER))?;
    let pod = cluster.kubectl.pod_ready("survivor")?;
    let counted = counts_on(cluster, "survivor", 0)?;
    cluster.kill_shim()?;
    cluster.shim_is_back()?;
    counts_on(cluster, "survivor", counted + 2)?;
    let after = cluster.kubectl.pod_ready("survivor")?;
    ensure!(
        container_id(&pod) == container_id(&after),
        "the container was replaced"
    );
    let said = cluster
        .kubectl
        .run(&["exec", "survivor", "--", "echo", "still here"])?;
    ensure!(said == "still here\n", "{said}");
    cluster.kubectl.delete_pod("survivor")?;
    cluster.wait_for_no_more(&before)
}

fn killed_control_plane(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl.apply(&shell_pod("steady", COUNTER))?;
    let pod = cluster.kubectl.pod_ready("steady")?;
    cluster
        .kubectl
        .apply_config_map("default", "acknowledged", "a", "b")?;
    cluster.kill_hull()?;
    cluster.start_hull()?;
    ensure!(
        cluster.kubectl.get("configmap", "acknowledged")?.is_some(),
        "an acknowledged write is lost"
    );
    let after = cluster.kubectl.pod_ready("steady")?;
    ensure!(
        container_id(&pod) == container_id(&after),
        "the container was replaced"
    );
    let counted = check_counter(&cluster.kubectl.run(&["logs", "steady"])?)?;
    counts_on(cluster, "steady", counted)?;
    cluster
        .kubectl
        .run(&["delete", "configmap", "acknowledged"])?;
    cluster.kubectl.delete_pod("steady")
}

fn killed_vmm(cluster: &mut Cluster) -> Result<()> {
    cluster
        .kubectl
        .apply(&shell_pod("victim", "echo alive; exec sleep 100000"))?;
    let pod = cluster.kubectl.pod_ready("victim")?;
    cluster.kill_vmms()?;
    let after = cluster
        .kubectl
        .pod_until("victim", "restarted", 60, |now| {
            let status = &now["status"]["containerStatuses"][0];
            let restarted =
                status["restartCount"].as_u64().is_some_and(|n| n == 1) && status["ready"] == true;
            if restarted {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })?;
    ensure!(
        container_id(&pod) != container_id(&after),
        "the container is the same"
    );
    let last = &after["status"]["containerStatuses"][0]["lastState"]["terminated"];
    let words = last.to_string().to_lowercase();
    ensure!(
        words.contains("vmm") && words.contains("kill"),
        "the reason is not told: {last}"
    );
    cluster.kubectl.delete_pod("victim")
}

fn deleted_while_shim_is_dead(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.traces()?;
    cluster
        .kubectl
        .apply(&shell_pod("leaver", "exec sleep 100000"))?;
    cluster
        .kubectl
        .pod_ready("leaver")
        .context("before the kill")?;
    cluster
        .kubectl
        .run(&["delete", "pod", "leaver", "--wait=false"])?;
    cluster.kill_shim()?;
    cluster.shim_is_back()?;
    cluster.kubectl.delete_pod("leaver")?;
    cluster.wait_for_no_more(&before)
}
