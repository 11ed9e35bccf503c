//! Ephemeral containers, restart rules, sidecars and hooks.

use std::time::Duration;

use crate::support::{Cluster, container, eventually, phase};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_container_joins_a_running_pod_and_its_target() {
    let cluster = Cluster::start().await;
    let spec = json!({"containers": [{"name": "c", "image": "i:1"}]});
    cluster.create_pod("app", spec).await;
    cluster.wait_running("app").await;
    let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [
        {"name": "debug", "image": "tools:1", "targetContainerName": "c"}]}}));
    cluster
        .pods()
        .patch_ephemeral_containers("app", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let running = |pod: &k8s_openapi::api::core::v1::Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let found = status.ephemeral_container_statuses.unwrap_or_default();
        found
            .iter()
            .any(|s| s.name == "debug" && s.state.as_ref().unwrap().running.is_some())
    };
    cluster.wait_pod("app", "debugged", running).await;
    let (target, _) = cluster.cri.container("c").unwrap();
    let (_, debug) = cluster.cri.container("debug").unwrap();
    let security = debug.config.linux.unwrap().security_context.unwrap();
    assert_eq!(security.namespace_options.unwrap().target_id, target);
    // Its end neither restarts it nor ends the pod.
    cluster.cri.exit("debug", 1);
    let pod = cluster
        .wait_pod("app", "debugger ended", |pod| !running(pod))
        .await;
    assert_eq!(phase(&pod), "Running");
    assert_eq!(cluster.cri.called("CreateContainer debug"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecar_is_stopped_after_the_container_it_serves() {
    let cluster = Cluster::start().await;
    cluster
        .create_pod(
            "pair",
            json!({"initContainers": [{"name": "proxy", "image": "i:1", "restartPolicy": "Always"}],
                "containers": [{"name": "c", "image": "i:1"}]}),
        )
        .await;
    cluster.wait_running("pair").await;
    let parameters = DeleteParams::default();
    cluster.pods().delete("pair", &parameters).await.unwrap();
    eventually("pod is down", || cluster.cri.is_empty()).await;
    let calls = cluster.cri.state.lock().calls.clone();
    let stopped: Vec<&str> = calls
        .iter()
        .filter_map(|call| call.strip_prefix("StopContainer ")?.split(' ').next())
        .collect();
    assert_eq!(stopped, ["c", "proxy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_does_not_stop_goes_with_its_sandbox() {
    let cluster = Cluster::start().await;
    let spec =
        json!({"containers": [{"name": "deaf", "image": "i:1"}, {"name": "c", "image": "i:1"}]});
    cluster.create_pod("stuck", spec).await;
    cluster.wait_running("stuck").await;
    cluster.cri.state.lock().stubborn.insert("deaf".into());
    let parameters = DeleteParams::default();
    cluster.pods().delete("stuck", &parameters).await.unwrap();
    eventually("pod is down", || cluster.cri.is_empty()).await;
    assert_eq!(cluster.cri.called("StopContainer c"), 1);
    assert_eq!(cluster.cri.called("StopPodSandbox"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_rule_restarts_a_container_of_a_pod_that_never_does() {
    let cluster = Cluster::start().await;
    let rule = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}});
    cluster
        .create_pod(
            "rule",
            json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1",
                "restartPolicy": "Never", "restartPolicyRules": [rule]}]}),
        )
        .await;
    cluster.wait_running("rule").await;
    cluster.cri.exit("c", 42);
    cluster
        .wait_pod("rule", "restarted", |pod| {
            container(pod).is_some_and(|status| status.restart_count == 1 && status.ready)
        })
        .await;
    cluster.cri.exit("c", 1);
    cluster
        .wait_pod("rule", "failed", |pod| phase(pod) == "Failed")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_hook_that_fails_stops_the_container_with_the_cause() {
    let cluster = Cluster::start().await;
    let hook = json!({"postStart": {"httpGet": {"host": "127.0.0.1", "port": 1, "path": "/warm"}}});
    cluster
        .create_pod(
            "hook",
            json!({"containers": [{"name": "c", "image": "i:1", "lifecycle": hook}]}),
        )
        .await;
    let message = cluster.wait_event("hook", "FailedPostStartHook").await;
    assert!(
        message.contains("Get \"http://127.0.0.1:1/warm\": dial tcp 127.0.0.1:1"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn host_aliases_are_in_the_hosts_file() {
    let mut cluster = Cluster::without_agent().await;
    cluster.config.timings.restart_backoff_max = Duration::from_secs(1);
    cluster.start_agent();
    cluster
        .create_pod(
            "alias",
            json!({"hostAliases": [{"ip": "198.51.100.7", "hostnames": ["foo.remote"]}],
                "containers": [{"name": "c", "image": "i:1"}]}),
        )
        .await;
    cluster.wait_running("alias").await;
    let (_, made) = cluster.cri.container("c").unwrap();
    let mounts = made.config.mounts.iter();
    let mut hosts = mounts.filter(|mount| mount.container_path == "/etc/hosts");
    let text = std::fs::read_to_string(&hosts.next().unwrap().host_path).unwrap();
    assert!(text.contains("10.42.0.2\talias\n"), "{text}");
    assert!(text.contains("198.51.100.7\tfoo.remote\n"), "{text}");
}
