//! kill -9 of any process: running pods go on, nothing is lost, nothing leaks.

mod control_plane;
mod shim;
mod vmm;

use anyhow::{Context, Result, ensure};
use hull_e2e::{cluster::Cluster, wait};
use serde_json::Value;

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    (
        "node_killed_shim_leaves_pods_running_and_finishes_what_it_was_at",
        shim::killed,
    ),
    (
        "node_pod_deleted_while_the_shim_is_dead_leaves_nothing",
        shim::killed_during_deletion,
    ),
    (
        "node_killed_control_plane_leaves_pods_running_and_finishes_what_it_was_at",
        control_plane::killed,
    ),
    (
        "node_killed_vmm_is_reported_and_its_pod_restarted_by_policy",
        vmm::killed,
    ),
];

/// Prints `count N` for each N, once a second.
const COUNTER: &str = "n=0; while :; do n=$((n+1)); echo count $n; sleep 1; done";

fn container_id(pod: &Value) -> &str {
    pod["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .unwrap_or("")
}

/// A running pod that other things happen beside, and that must not notice.
struct Bystander {
    name: &'static str,
    /// Its container's id, start and restarts.
    container: [Value; 3],
    counted: u64,
}

impl Bystander {
    /// The pod, which counts ([`COUNTER`]), once it is ready.
    fn of(cluster: &Cluster, name: &'static str) -> Result<Bystander> {
        let pod = cluster.kubectl.pod_ready(name)?;
        Ok(Bystander {
            name,
            container: container_of(&pod),
            counted: counts_on(cluster, name, 0)?,
        })
    }

    /// It is the same container, counts on, and lost no line of its log.
    fn goes_on(&mut self, cluster: &Cluster) -> Result<()> {
        let pod = cluster.kubectl.pod_ready(self.name)?;
        let now = container_of(&pod);
        let was = &self.container;
        ensure!(now == *was, "{} was disturbed: {was:?}, {now:?}", self.name);
        self.counted = counts_on(cluster, self.name, self.counted)?;
        Ok(())
    }
}

/// What tells a container from the next one: its id, its start, and how many there were before.
pub fn container_of(pod: &Value) -> [Value; 3] {
    let status = &pod["status"]["containerStatuses"][0];
    ["/containerID", "/state/running/startedAt", "/restartCount"]
        .map(|field| status.pointer(field).cloned().unwrap_or_default())
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

/// Waits until the pod has counted further than that.
fn counts_on(cluster: &Cluster, name: &str, past: u64) -> Result<u64> {
    wait::until("the pod to count on", 20, || {
        // A runtime that was just killed has to be back before it tells where the log is.
        let printed = cluster.kubectl.try_run(&["logs", name], "")?;
        if printed.code != 0 {
            return Ok(Err(printed.stderr));
        }
        let count = check_counter(&printed.stdout)?;
        Ok((count > past)
            .then_some(count)
            .ok_or_else(|| count.to_string()))
    })
    .with_context(|| format!("pod {name}"))
}
