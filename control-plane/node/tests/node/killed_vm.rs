//! The death of a pod's VM: told with its reason, and what follows is the restart policy's.

use crate::support::{Cluster, container, phase};
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use serde_json::json;

/// A pod of this policy whose VM was killed while it ran.
async fn with_killed_vm(cluster: &Cluster, policy: &str) {
    cluster
        .create_pod(
            "vm",
            json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i:1"}]}),
        )
        .await;
    cluster.wait_running("vm").await;
    cluster.cri.kill_vm("vm");
}

/// The state is the end that a killed VM gives.
fn check_end(state: Option<ContainerState>) {
    let end = state.unwrap().terminated.unwrap();
    assert_eq!(
        (end.exit_code, end.reason.as_deref(), end.message.as_deref()),
        (
            137,
            Some("VMMKilled"),
            Some("hull-vmm was killed by signal 9")
        )
    );
}

async fn restarted(cluster: &Cluster) -> Pod {
    cluster
        .wait_pod("vm", "restarted", |pod| {
            container(pod).is_some_and(|status| status.restart_count == 1 && status.ready)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_that_always_restarts_does_so_in_a_new_sandbox() {
    let cluster = Cluster::start().await;
    with_killed_vm(&cluster, "Always").await;
    let pod = restarted(&cluster).await;
    check_end(container(&pod).unwrap().last_state.clone());
    assert_eq!(cluster.cri.called("RunPodSandbox"), 2);
    cluster.wait_event("vm", "SandboxChanged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_that_restarts_on_failure_takes_it_for_one() {
    let cluster = Cluster::start().await;
    with_killed_vm(&cluster, "OnFailure").await;
    let pod = restarted(&cluster).await;
    check_end(container(&pod).unwrap().last_state.clone());
    assert_eq!(cluster.cri.called("RunPodSandbox"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_that_never_restarts_fails_with_the_reason() {
    let cluster = Cluster::start().await;
    with_killed_vm(&cluster, "Never").await;
    let pod = cluster
        .wait_pod("vm", "failed", |pod| phase(pod) == "Failed")
        .await;
    let status = container(&pod).unwrap();
    assert_eq!((status.restart_count, status.ready), (0, false));
    check_end(status.state.clone());
    // A finished pod gets no further VM, also from an agent that has forgotten everything.
    let mut cluster = cluster;
    cluster.stop_agent().await;
    cluster.start_agent();
    with_next_pod(&cluster).await;
    assert_eq!(cluster.cri.called("StartContainer c"), 1);
    let pod = cluster.pods().get("vm").await.unwrap();
    check_end(container(&pod).unwrap().state.clone());
}

/// Another pod runs: the agent has done what it had to do for those before it.
async fn with_next_pod(cluster: &Cluster) {
    cluster
        .create_pod(
            "next",
            json!({"containers": [{"name": "d", "image": "i:1"}]}),
        )
        .await;
    cluster.wait_running("next").await;
}
