//! kill -9 of hull-vmm.

use anyhow::{Context, Result, ensure};
use hull_e2e::cluster::Cluster;
use serde_json::Value;

use super::container_id;
use crate::pods::shell_pod;

/// The pods' names, and their restart policies.
const VICTIMS: [(&str, &str); 3] = [
    ("victim-always", "Always"),
    ("victim-on-failure", "OnFailure"),
    ("victim-never", "Never"),
];

/// Each policy does with its pod what it says, and each pod tells why.
pub fn killed(cluster: &mut Cluster) -> Result<()> {
    let kubectl = cluster.kubectl.clone();
    for (name, policy) in VICTIMS {
        let yaml = shell_pod(name, "echo alive; exec sleep 100000")
            .replace("spec:", &format!("spec:\n  restartPolicy: {policy}"));
        kubectl.apply(&yaml)?;
    }
    let mut before = Vec::new();
    for (name, _) in VICTIMS {
        before.push(kubectl.pod_ready(name)?);
    }
    cluster.kill_vmms()?;
    for ((name, policy), before) in VICTIMS.into_iter().zip(&before) {
        match policy {
            "Never" => failed(cluster, name),
            _ => restarted(cluster, name, before),
        }
        .with_context(|| format!("restartPolicy {policy}"))?;
    }
    for (name, _) in VICTIMS {
        kubectl.run(&["delete", "pod", name, "--wait=false"])?;
    }
    for (name, _) in VICTIMS {
        kubectl.delete_pod(name)?;
    }
    Ok(())
}

/// The container ended because its VM was killed.
fn check_reason(terminated: &Value) -> Result<()> {
    ensure!(
        terminated["reason"] == "VMMKilled" && terminated["exitCode"] == 137,
        "the reason is not told: {terminated}"
    );
    let message = terminated["message"].as_str().unwrap_or("");
    ensure!(message.contains("virtual machine"), "{terminated}");
    Ok(())
}

fn restarted(cluster: &Cluster, name: &str, before: &Value) -> Result<()> {
    let after = cluster.kubectl.pod_until(name, "restarted", 60, |now| {
        let status = &now["status"]["containerStatuses"][0];
        if status["restartCount"] == 1 && status["ready"] == true {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })?;
    ensure!(
        container_id(before) != container_id(&after),
        "the container is the same"
    );
    check_reason(&after["status"]["containerStatuses"][0]["lastState"]["terminated"])
}

fn failed(cluster: &Cluster, name: &str) -> Result<()> {
    let pod = cluster.kubectl.pod_until(name, "failed", 60, |now| {
        if now["status"]["phase"] == "Failed" {
            Ok(())
        } else {
            Err(now["status"].to_string())
        }
    })?;
    let status = &pod["status"]["containerStatuses"][0];
    ensure!(status["restartCount"] == 0, "it ran again: {status}");
    check_reason(&status["state"]["terminated"])
}
