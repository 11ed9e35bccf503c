//! What the agent does with pods and with its node.

use std::time::Duration;

use crate::support::{Cluster, NODE, container, eventually, phase};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn node_object_is_registered_and_ready_with_a_lease() {
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let ready = async || {
        let node = nodes.get_opt(NODE).await.unwrap()?;
        let conditions = node.status.clone()?.conditions?;
        let ready = conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        ready.then_some(node)
    };
    let begun = std::time::Instant::now();
    let node = loop {
        if let Some(node) = ready().await {
            break node;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{:#?}",
            nodes.get_opt(NODE).await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(
        node.metadata.labels.unwrap()["kubernetes.io/hostname"],
        NODE
    );
    let status = node.status.unwrap();
    let info = status.node_info.unwrap();
    assert_eq!(info.container_runtime_version, "hull://0.1.0");
    assert!(info.kubelet_version.starts_with("v1.36"));
    assert_eq!(status.capacity.unwrap()["pods"].0, "110");
    let port = status
        .daemon_endpoints
        .unwrap()
        .kubelet_endpoint
        .unwrap()
        .port;
    assert_eq!(port, i32::from(cluster.config.listen.port()));
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    loop {
        if let Some(lease) = leases.get_opt(NODE).await.unwrap() {
            assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some(NODE));
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "no lease");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_runs_reports_and_ends_gracefully() {
    let cluster = Cluster::start().await;
    let created = cluster
        .create_pod(
            "web",
            json!({"containers": [{"name": "c", "image": "nginx"}],
            "terminationGracePeriodSeconds": 7}),
        )
        .await;
    let uid = created.metadata.uid.unwrap();
    let pod = cluster.wait_running("web").await;
    let status = pod.status.unwrap();
    assert_eq!(status.pod_ip.as_deref(), Some("10.42.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    for reason in ["Pulling", "Pulled", "Created", "Started"] {
        cluster.wait_event("web", reason).await;
    }
    let logs = cluster.config.pod_log_dir("default", "web", &uid);
    assert!(logs.join("c/0.log").exists());

    cluster
        .pods()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    let begun = std::time::Instant::now();
    while cluster.pods().get_opt("web").await.unwrap().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(30), "pod not deleted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(cluster.cri.is_empty());
    assert_eq!(cluster.cri.called("StopContainer c 7"), 1);
    assert!(!logs.exists());
    assert!(!cluster.config.pod_dir(&uid).exists());
    assert_eq!(
        cluster.wait_event("web", "Killing").await,
        "Stopping container c"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn crashing_container_restarts_then_backs_off() {
    let cluster = Cluster::start().await;
    cluster.cri.state.lock().exits.insert("c".into(), 3);
    cluster
        .create_pod(
            "crash",
            json!({"containers": [{"name": "c", "image": "i:1"}]}),
        )
        .await;
    let message = cluster.wait_waiting("crash", "CrashLoopBackOff").await;
    assert!(
        message.contains("restarting failed container=c pod=crash_default("),
        "{message}"
    );
    let pod = cluster
        .wait_pod("crash", "restarted once", |pod| {
            container(pod).is_some_and(|status| status.restart_count >= 1)
        })
        .await;
    assert_eq!(phase(&pod), "Running");
    cluster.wait_event("crash", "BackOff").await;
    // It stops failing: the next start stays.
    cluster.cri.state.lock().exits.clear();
    let pod = cluster.wait_running("crash").await;
    let last = container(&pod)
        .unwrap()
        .last_state
        .clone()
        .unwrap()
        .terminated
        .unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
}

#[tokio::test(flavor = "multi_thread")]
async fn run_to_completion_pod_ends_and_its_sandbox_is_stopped() {
    let cluster = Cluster::start().await;
    cluster.cri.state.lock().exits.insert("c".into(), 0);
    cluster
        .create_pod(
            "job",
            json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}),
        )
        .await;
    cluster
        .wait_pod("job", "succeeded", |pod| phase(pod) == "Succeeded")
        .await;
    eventually("sandbox stopped", || {
        cluster
            .cri
            .state
            .lock()
            .sandboxes
            .values()
            .all(|sandbox| !sandbox.ready)
    })
    .await;
    assert_eq!(cluster.cri.called("StartContainer"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn command_that_does_not_exist_shows_the_cause() {
    let cluster = Cluster::start().await;
    cluster
        .create_pod(
            "bad",
            json!({"containers": [{"name": "c", "image": "i:1", "command": ["/missing"]}]}),
        )
        .await;
    let event = cluster.wait_event("bad", "Failed").await;
    assert!(
        event.contains("exec /missing: no such file or directory"),
        "{event}"
    );
    cluster.wait_waiting("bad", "CrashLoopBackOff").await;
    let pod = cluster.pods().get("bad").await.unwrap();
    let last = container(&pod)
        .unwrap()
        .last_state
        .clone()
        .unwrap()
        .terminated
        .unwrap();
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (128, Some("StartError"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_config_map_holds_the_container_until_it_appears() {
    let cluster = Cluster::start().await;
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}}]);
    cluster
        .create_pod(
            "env",
            json!({"containers": [{"name": "c", "image": "i:1", "env": env}]}),
        )
        .await;
    let message = cluster
        .wait_waiting("env", "CreateContainerConfigError")
        .await;
    assert_eq!(message, "configmap \"cm\" not found");
    cluster
        .create::<ConfigMap>(json!({"metadata": {"name": "cm"}, "data": {"a": "1"}}))
        .await;
    cluster.wait_running("env").await;
    let (_, made) = cluster.cri.container("c").unwrap();
    assert!(
        made.config
            .envs
            .iter()
            .any(|env| env.key == "A" && env.value == "1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_made_before_the_sandbox_and_follow_their_objects() {
    let cluster = Cluster::start().await;
    cluster
        .create_pod("vol", json!({
            "volumes": [{"name": "v", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {"medium": "Memory"}}],
            "containers": [{"name": "c", "image": "i:1", "volumeMounts": [
                {"name": "v", "mountPath": "/v"}, {"name": "e", "mountPath": "/e"}]}]}))
        .await;
    let message = cluster.wait_event("vol", "FailedMount").await;
    assert_eq!(
        message,
        "MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found"
    );
    assert_eq!(cluster.cri.called("RunPodSandbox"), 0);
    cluster
        .create::<ConfigMap>(json!({"metadata": {"name": "cm"}, "data": {"k": "one"}}))
        .await;
    cluster.wait_running("vol").await;
    let (_, made) = cluster.cri.container("c").unwrap();
    let mounts: Vec<_> = made
        .config
        .mounts
        .iter()
        .map(|m| m.container_path.as_str())
        .collect();
    assert_eq!(mounts, ["/v", "/e", "/etc/hosts", "/dev/termination-log"]);
    let file = std::path::Path::new(&made.config.mounts[0].host_path).join("k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let patch = Patch::Merge(json!({"data": {"k": "two"}}));
    maps.patch("cm", &PatchParams::default(), &patch)
        .await
        .unwrap();
    eventually("volume follows", || {
        std::fs::read_to_string(&file).is_ok_and(|t| t == "two")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unimplemented_volume_type_says_so() {
    let cluster = Cluster::start().await;
    cluster
        .create_pod(
            "nfs",
            json!({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}],
            "containers": [{"name": "c", "image": "i:1"}]}),
        )
        .await;
    let message = cluster.wait_event("nfs", "FailedMount").await;
    assert!(
        message.contains("unimplemented volume type nfs"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_failure_is_an_event_with_the_cause_and_is_tried_again() {
    let cluster = Cluster::start().await;
    let cause = "guest did not answer within 15 s; last console lines: panic";
    cluster.cri.state.lock().sandbox_error = Some(cause.into());
    cluster
        .create_pod(
            "boot",
            json!({"containers": [{"name": "c", "image": "i:1"}]}),
        )
        .await;
    let message = cluster.wait_event("boot", "FailedCreatePodSandBox").await;
    assert!(message.contains(cause), "{message}");
    cluster.cri.state.lock().sandbox_error = None;
    cluster.wait_running("boot").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_class_picks_the_handler() {
    let cluster = Cluster::start().await;
    let classes: Api<RuntimeClass> = Api::all(cluster.client.clone());
    let class =
        serde_json::from_value(json!({"metadata": {"name": "vm"}, "handler": "microvm"})).unwrap();
    classes
        .create(&PostParams::default(), &class)
        .await
        .unwrap();
    cluster
        .create_pod(
            "class",
            json!({"runtimeClassName": "vm", "containers": [{"name": "c", "image": "i:1"}]}),
        )
        .await;
    cluster.wait_running("class").await;
    assert_eq!(cluster.cri.called("RunPodSandbox microvm"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_agent_adopts_pods_and_removes_orphans() {
    let mut cluster = Cluster::start().await;
    for name in ["stays", "goes"] {
        cluster
            .create_pod(
                name,
                json!({"containers": [{"name": name, "image": "i:1"}]}),
            )
            .await;
        cluster.wait_running(name).await;
    }
    cluster.stop_agent().await;
    // Removed by force while nobody watched.
    cluster
        .pods()
        .delete("goes", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let calls = cluster.cri.state.lock().calls.len();
    cluster.start_agent();
    eventually("orphan removed", || {
        cluster.cri.state.lock().sandboxes.len() == 1
    })
    .await;
    cluster.wait_running("stays").await;
    let state = cluster.cri.state.lock();
    let since = &state.calls[calls..];
    assert!(
        !since
            .iter()
            .any(|call| call.contains("stays") || call.starts_with("Run")),
        "{since:?}"
    );
    assert_eq!(state.sandboxes.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn force_deleted_pod_is_cleaned_up() {
    let cluster = Cluster::start().await;
    cluster
        .create_pod(
            "force",
            json!({"containers": [{"name": "c", "image": "i:1"}]}),
        )
        .await;
    cluster.wait_running("force").await;
    cluster
        .pods()
        .delete("force", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    eventually("runtime is empty", || cluster.cri.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_that_goes_away_and_returns_disturbs_nothing() {
    let mut cluster = Cluster::start().await;
    cluster
        .create_pod(
            "calm",
            json!({"containers": [{"name": "c", "image": "i:1"}]}),
        )
        .await;
    cluster.wait_running("calm").await;
    cluster.stop_cri();
    cluster
        .create_pod(
            "later",
            json!({"containers": [{"name": "d", "image": "i:1"}]}),
        )
        .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let begun = std::time::Instant::now();
    loop {
        let conditions = nodes
            .get(NODE)
            .await
            .unwrap()
            .status
            .unwrap()
            .conditions
            .unwrap();
        let ready = conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .unwrap()
            .clone();
        if ready.status == "False" {
            assert!(ready.message.unwrap().contains("container runtime is down"));
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "node stays ready"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let calm = cluster.pods().get("calm").await.unwrap();
    assert_eq!(
        (
            phase(&calm).as_str(),
            container(&calm).unwrap().restart_count
        ),
        ("Running", 0)
    );
    cluster.start_cri();
    cluster.wait_running("later").await;
    assert_eq!(cluster.cri.called("StartContainer c"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_liveness_probe_restarts_the_container() {
    let cluster = Cluster::start().await;
    cluster
        .create_pod(
            "live",
            json!({"containers": [{"name": "c", "image": "i:1", "livenessProbe":
            {"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1}}]}),
        )
        .await;
    cluster.wait_running("live").await;
    cluster.cri.state.lock().exec_exit_code = 1;
    cluster
        .wait_pod("live", "restarted", |pod| {
            container(pod).is_some_and(|c| c.restart_count >= 1)
        })
        .await;
    cluster.wait_event("live", "Unhealthy").await;
}
