//! Failures that name themselves.

use anyhow::{Result, ensure};
use hull_e2e::{
    cluster::Cluster,
    guest::{Guest, SILENT_LINE},
};
use serde_json::Value;

use crate::{Scenario, pods::shell_pod};

pub const ALL: &[Scenario] = &[
    (
        "node_absent_image_is_reported_then_backed_off",
        absent_image,
    ),
    ("node_registry_that_is_down_is_reported", registry_down),
    ("node_image_with_wrong_digest_is_refused", wrong_digest),
    ("node_image_that_climbs_out_is_refused", climbing_image),
    (
        "node_absent_command_is_reported_with_its_cause",
        absent_command,
    ),
    (
        "node_failing_cni_plugin_is_reported_and_undone",
        failing_cni,
    ),
    (
        "node_guest_that_panics_is_reported_with_its_console",
        panicking_guest,
    ),
    (
        "node_guest_that_never_answers_is_reported_with_its_console",
        silent_guest,
    ),
];

fn waiting(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["waiting"]
}

/// Creates a pod of this image; wants ErrImagePull with `cause`, then ImagePullBackOff,
/// and nothing left after its deletion.
fn refused_image(cluster: &mut Cluster, name: &str, image: &str, cause: &str) -> Result<()> {
    ensure!(!image.contains(cause), "each event names the image");
    let before = cluster.traces()?;
    cluster
        .kubectl
        .apply(&shell_pod(name, "exit 0").replace("image: busybox", &format!("image: {image}")))?;
    cluster.kubectl.event(name, "Failed", cause)?;
    cluster.kubectl.event(name, "Failed", "ErrImagePull")?;
    cluster
        .kubectl
        .pod_until(name, "ImagePullBackOff", 45, |pod| {
            if waiting(pod)["reason"] == "ImagePullBackOff" {
                Ok(())
            } else {
                Err(pod["status"].to_string())
            }
        })?;
    cluster.kubectl.delete_pod(name)?;
    cluster.wait_for_no_more(&before)
}

fn absent_image(cluster: &mut Cluster) -> Result<()> {
    refused_image(cluster, "absent", "docker.io/test/absent:1", "not found")
}

fn registry_down(cluster: &mut Cluster) -> Result<()> {
    refused_image(
        cluster,
        "down",
        "127.0.0.1:9/library/busybox",
        "registry unavailable",
    )
}

fn wrong_digest(cluster: &mut Cluster) -> Result<()> {
    refused_image(
        cluster,
        "wrong",
        "docker.io/test/wrong-digest:latest",
        "digest mismatch",
    )
}

fn climbing_image(cluster: &mut Cluster) -> Result<()> {
    for (image, cause) in [
        ("climbing-path", ".."),
        ("absolute-hard-link", "not in the image"),
        ("climbing-relative-symlink", "out of the image"),
    ] {
        refused_image(
            cluster,
            image,
            &format!("docker.io/test/{image}:latest"),
            cause,
        )?;
    }
    Ok(())
}

fn absent_command(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.traces()?;
    let yaml =
        shell_pod("typo", "exit 0").replace(r#"["sh", "-c", "exit 0"]"#, r#"["no-such-program"]"#);
    cluster.kubectl.apply(&yaml)?;
    cluster.kubectl.event("typo", "Failed", "no-such-program")?;
    cluster
        .kubectl
        .pod_until("typo", "the cause in its status", 30, |pod| {
            let text = pod["status"]["containerStatuses"][0].to_string();
            if text.contains("no-such-program") {
                Ok(())
            } else {
                Err(text)
            }
        })?;
    cluster.kubectl.delete_pod("typo")?;
    cluster.wait_for_no_more(&before)
}

fn failing_cni(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.traces()?;
    cluster.break_cni()?;
    let seen = cluster
        .kubectl
        .apply(&shell_pod("netless", "exec sleep 100000"))
        .and_then(|()| {
            cluster
                .kubectl
                .event("netless", "FailedCreatePodSandBox", "broken on purpose")
        });
    let undone = cluster.wait_for_no_more_sandboxes(&before);
    cluster.mend_cni()?;
    seen?;
    undone?;
    cluster
        .kubectl
        .pod_until("netless", "running once the plugin works", 90, |pod| {
            if pod["status"]["phase"] == "Running" {
                Ok(())
            } else {
                Err(pod["status"].to_string())
            }
        })?;
    cluster.kubectl.delete_pod("netless")
}

/// Creates a pod whose guest fails; wants one event with all `words`, nothing left behind,
/// and the pod running once guests boot again.
fn failing_guest(cluster: &mut Cluster, name: &str, guest: Guest, words: &[&str]) -> Result<()> {
    let before = cluster.traces()?;
    cluster.boot(guest)?;
    let seen = cluster
        .kubectl
        .apply(&shell_pod(name, "exec sleep 100000"))
        .and_then(|()| {
            let reason = "FailedCreatePodSandBox";
            cluster.kubectl.event(name, reason, words[0])
        });
    cluster.boot(Guest::Agent)?;
    let message = seen?;
    for word in words {
        ensure!(
            message.contains(word),
            "no {word:?} in the event: {message}"
        );
    }
    cluster
        .kubectl
        .pod_until(name, "running once guests boot", 90, |pod| {
            if pod["status"]["phase"] == "Running" {
                Ok(())
            } else {
                Err(pod["status"].to_string())
            }
        })?;
    cluster.kubectl.delete_pod(name)?;
    cluster.wait_for_no_more(&before)
}

fn panicking_guest(cluster: &mut Cluster) -> Result<()> {
    failing_guest(
        cluster,
        "panicking",
        Guest::Panicking,
        &["GuestPanic", "phase kernel", "Kernel panic"],
    )
}

fn silent_guest(cluster: &mut Cluster) -> Result<()> {
    failing_guest(
        cluster,
        "silent",
        Guest::Silent,
        &["last phase", "phase kernel", SILENT_LINE],
    )
}
