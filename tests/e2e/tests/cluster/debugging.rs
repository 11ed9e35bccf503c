//! Looking into a running pod.

use anyhow::{Context, Result, ensure};
use hull_e2e::{cluster::Cluster, wait};

use crate::{Scenario, pods::shell_pod};

pub const ALL: &[Scenario] = &[
    (
        "node_kubectl_debug_joins_a_running_pod_and_pulls_by_policy",
        debug_joins_a_running_pod,
    ),
    (
        "node_kubectl_top_shows_what_a_pod_uses",
        top_shows_what_a_pod_uses,
    ),
];

fn debug_joins_a_running_pod(cluster: &mut Cluster) -> Result<()> {
    cluster
        .kubectl
        .apply(&shell_pod("patient", "exec sleep 100000"))?;
    cluster.kubectl.pod_ready("patient")?;
    let script = "ps -o args; exec sleep 100000";
    cluster.kubectl.run(&[
        "debug",
        "patient",
        "--image=busybox",
        "--target=main",
        "--container=doctor",
        "--",
        "sh",
        "-c",
        script,
    ])?;
    cluster
        .kubectl
        .pod_until("patient", "debugged", 30, |pod| {
            let status = &pod["status"]["ephemeralContainerStatuses"][0];
            if status["name"] == "doctor" && status["state"]["running"].is_object() {
                Ok(())
            } else {
                Err(pod["status"].to_string())
            }
        })?;
    wait::until("the target's process in the debugger's list", 10, || {
        let log = cluster.kubectl.run(&["logs", "patient", "-c", "doctor"])?;
        Ok(if log.contains("sleep 100000") {
            Ok(())
        } else {
            Err(log)
        })
    })?;
    pull_policies(cluster)?;
    let pod = cluster
        .kubectl
        .get("pods", "patient")?
        .context("the pod is gone")?;
    ensure!(
        pod["status"]["containerStatuses"][0]["restartCount"] == 0,
        "the pod was disturbed: {}",
        pod["status"]
    );
    cluster.kubectl.delete_pod("patient")
}

/// Further debuggers, whose images may not be pulled, or not without need.
fn pull_policies(cluster: &Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let debug = |name: &str, image: &str, policy: &str| {
        kubectl.run(&[
            "debug",
            "patient",
            &format!("--container={name}"),
            &format!("--image={image}"),
            &format!("--image-pull-policy={policy}"),
            "--",
            "true",
        ])
    };
    debug("frugal", "busybox", "IfNotPresent")?;
    kubectl.event(
        "patient",
        "Pulled",
        "Container image \"busybox\" already present on machine",
    )?;
    debug("abstinent", "test/plain", "Never")?;
    let cause = "Container image \"test/plain\" is not present with pull policy of Never";
    kubectl.event("patient", "ErrImageNeverPull", cause)?;
    kubectl.pod_until("patient", "without an image", 30, |pod| {
        let all = pod["status"]["ephemeralContainerStatuses"].as_array();
        let mut all = all.into_iter().flatten();
        let found = all.find(|status| status["name"] == "abstinent");
        let waiting = found.map(|status| &status["state"]["waiting"]);
        match waiting {
            Some(w) if w["reason"] == "ErrImageNeverPull" && w["message"] == cause => Ok(()),
            _ => Err(pod["status"].to_string()),
        }
    })?;
    Ok(())
}

fn top_shows_what_a_pod_uses(cluster: &mut Cluster) -> Result<()> {
    cluster
        .kubectl
        .apply(&shell_pod("busy", "while :; do :; done"))?;
    cluster.kubectl.pod_ready("busy")?;
    wait::until("kubectl top to show the pod", 60, || {
        let printed = cluster
            .kubectl
            .try_run(&["top", "pod", "busy", "--no-headers"], "")?;
        // NAME, CPU(cores) as 250m, MEMORY(bytes) as 3Mi.
        let fields: Vec<&str> = printed.stdout.split_whitespace().collect();
        Ok(match fields.as_slice() {
            ["busy", cpu, memory]
                if cpu.ends_with('m') && *cpu != "0m" && memory.ends_with("Mi") =>
            {
                Ok(())
            }
            _ => Err(format!("{printed:?}")),
        })
    })?;
    wait::until("kubectl top to show the node", 60, || {
        let printed = cluster
            .kubectl
            .try_run(&["top", "node", "--no-headers"], "")?;
        Ok(if printed.code == 0 && printed.stdout.contains('%') {
            Ok(())
        } else {
            Err(format!("{printed:?}"))
        })
    })?;
    cluster.kubectl.delete_pod("busy")
}
