//! kill -9 of hull-vmm, and of hull-fsd beside it.

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

/// The pod whose file server dies.
const WITH_FILES: &str = "victim-files";

/// Each policy does with its pod what it says, and each pod tells why. Where hull-fsd dies, only
/// its own pod starts anew.
pub fn killed(cluster: &mut Cluster) -> Result<()> {
    let kubectl = cluster.kubectl.clone();
    let traces = cluster.traces()?;
    for (name, policy) in VICTIMS {
        let yaml = shell_pod(name, "echo alive; exec sleep 100000")
            .replace("spec:", &format!("spec:\n  restartPolicy: {policy}"));
        kubectl.apply(&yaml)?;
    }
    kubectl.apply(&with_host_directory())?;
    let mut before = Vec::new();
    for (name, _) in VICTIMS {
        before.push(kubectl.pod_ready(name)?);
    }
    let with_files = kubectl.pod_ready(WITH_FILES)?;
    cluster.kill_file_servers()?;
    let ended = restarted(cluster, WITH_FILES, &with_files)?;
    ensure!(ended["reason"] == "FileServerDied", "{ended}");
    kubectl.run(&["exec", WITH_FILES, "--", "ls", "/host/bin"])?;
    cluster.kill_vmms()?;
    for ((name, policy), before) in VICTIMS.into_iter().zip(&before) {
        match policy {
            "Never" => failed(cluster, name),
            _ => restarted(cluster, name, before).and_then(|ended| check_reason(&ended)),
        }
        .with_context(|| format!("restartPolicy {policy}"))?;
    }
    let names = VICTIMS
        .map(|(name, _)| name)
        .into_iter()
        .chain([WITH_FILES]);
    for name in names.clone() {
        kubectl.run(&["delete", "pod", name, "--wait=false"])?;
    }
    for name in names {
        kubectl.delete_pod(name)?;
    }
    cluster.wait_for_no_more(&traces)
}

/// A pod with a directory of the host, which hull-fsd serves.
fn with_host_directory() -> String {
    let pod = shell_pod(WITH_FILES, "exec sleep 100000");
    let volume = "spec:\n  volumes: [{name: host, hostPath: {path: /usr}}]";
    let mount =
        "image: busybox\n    volumeMounts: [{name: host, mountPath: /host, readOnly: true}]";
    pod.replace("spec:", volume)
        .replace("image: busybox", mount)
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

/// How the container ended before it ran again.
fn restarted(cluster: &Cluster, name: &str, before: &Value) -> Result<Value> {
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
    Ok(after["status"]["containerStatuses"][0]["lastState"]["terminated"].clone())
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
