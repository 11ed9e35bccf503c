//! Pressure, image garbage collection, log rotation and what the server says of use.

use std::time::Duration;

use crate::support::{Cluster, NODE, eventually, get, phase};
use hull_node::eviction::thresholds::Threshold;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn pod_is_evicted_when_memory_is_short() {
    let mut cluster = Cluster::without_agent().await;
    let always = Threshold::parse("memory.available<100%").unwrap();
    cluster.config.eviction.thresholds = vec![always];
    cluster.start_agent();
    let spec = json!({"containers": [{"name": "c", "image": "i:1"}]});
    cluster.create_pod("victim", spec).await;
    let pod = cluster
        .wait_pod("victim", "evicted", |pod| phase(pod) == "Failed")
        .await;
    let status = pod.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    let message = status.message.unwrap();
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: "),
        "{message}"
    );
    let conditions = status.conditions.unwrap();
    let target = conditions.iter().find(|c| c.type_ == "DisruptionTarget");
    let target = target.unwrap();
    assert_eq!(
        (target.status.as_str(), target.reason.as_deref()),
        ("True", Some("TerminationByKubelet"))
    );
    cluster.wait_event("victim", "Evicted").await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let begun = std::time::Instant::now();
    loop {
        let status = nodes.get(NODE).await.unwrap().status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let pressure = |c: &k8s_openapi::api::core::v1::NodeCondition| {
            c.type_ == "MemoryPressure" && c.status == "True"
        };
        if conditions.iter().any(pressure) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{conditions:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_image_goes_before_a_pod_when_the_disk_is_full() {
    let mut cluster = Cluster::without_agent().await;
    let image = |id: &str| hull_cri_api::v1::Image {
        id: id.into(),
        repo_tags: vec![format!("{id}:1")],
        size: 1,
        ..Default::default()
    };
    cluster.cri.state.lock().images = [
        ("old:1".into(), image("old")),
        ("used:1".into(), image("used")),
    ]
    .into();
    cluster.start_agent();
    let spec = json!({"containers": [{"name": "c", "image": "used:1"}]});
    cluster.create_pod("p", spec).await;
    cluster.wait_running("p").await;
    cluster.stop_agent().await;
    let always = Threshold::parse("nodefs.available<100%").unwrap();
    cluster.config.eviction.thresholds = vec![always];
    cluster.start_agent();
    eventually("unused image removed", || {
        cluster.cri.called("RemoveImage old") == 1
    })
    .await;
    cluster
        .wait_pod("p", "evicted after it", |pod| phase(pod) == "Failed")
        .await;
    eventually("pod stopped", || cluster.cri.called("StopContainer") > 0).await;
    assert_eq!(cluster.cri.called("RemoveImage used"), 0);
    let state = cluster.cri.state.lock();
    let position = |prefix: &str| state.calls.iter().position(|call| call.starts_with(prefix));
    assert!(
        position("RemoveImage old") < position("StopContainer"),
        "{:?}",
        state.calls
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_log_is_set_aside_and_goes_with_its_container() {
    let mut cluster = Cluster::without_agent().await;
    cluster.config.log_max_bytes = 200;
    cluster.start_agent();
    let spec = json!({"containers": [{"name": "c", "image": "i:1"}]});
    let pod = cluster.create_pod("talker", spec).await;
    cluster.wait_running("talker").await;
    let uid = pod.metadata.uid.unwrap();
    let logs = cluster.config.pod_log_dir("default", "talker", &uid);
    let line = "2026-11-22T05:00:00.0Z stdout F more\n";
    std::fs::write(logs.join("c/0.log"), line.repeat(10)).unwrap();
    eventually("log rotated", || {
        std::fs::metadata(logs.join("c/0.log")).is_ok_and(|log| log.len() == 0)
    })
    .await;
    let names = std::fs::read_dir(logs.join("c")).unwrap();
    assert_eq!(names.count(), 2);
    assert_eq!(cluster.cri.called("ReopenContainerLog"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_tells_what_pods_use() {
    let cluster = Cluster::start().await;
    let spec = json!({"containers": [{"name": "c", "image": "i:1"}]});
    cluster.create_pod("p", spec).await;
    cluster.wait_running("p").await;
    let (code, text) = get(&cluster, "/stats/summary").await;
    assert_eq!(code, 200, "{text}");
    let summary: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(summary["node"]["nodeName"], NODE);
    let pod = &summary["pods"][0];
    assert_eq!(pod["podRef"]["name"], "p");
    let container = &pod["containers"][0];
    assert_eq!(container["memory"]["workingSetBytes"], 20 << 20);
    let (code, text) = get(&cluster, "/metrics/resource").await;
    assert_eq!(code, 200);
    assert!(
        text.contains("pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"p\"} 3 "),
        "{text}"
    );
    let (code, text) = get(&cluster, "/metrics/cadvisor").await;
    assert_eq!(code, 200);
    assert!(
        text.contains("container_memory_usage_bytes{pod=\"p\"} 7"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_api_tells_what_nodes_and_pods_use() {
    let cluster = Cluster::start().await;
    let spec = json!({"containers": [{"name": "c", "image": "i:1"}]});
    cluster.create_pod("p", spec).await;
    cluster.wait_running("p").await;
    let ask = async |path: &str| -> Value {
        let path = format!("/apis/metrics.k8s.io/v1beta1/{path}");
        let request = hyper::Request::get(path).body(Vec::new()).unwrap();
        cluster.client.request(request).await.unwrap()
    };
    let pod = ask("namespaces/default/pods/p").await;
    assert_eq!(pod["kind"], "PodMetrics");
    assert_eq!(
        pod["containers"],
        json!([{"name": "c", "usage": {"cpu": "250000000n", "memory": "20480Ki"}}])
    );
    let list = ask("namespaces/default/pods?labelSelector=app%3Dnone").await;
    assert_eq!(list["items"], json!([]));
    assert_eq!(ask("pods").await["items"][0]["metadata"]["name"], "p");
    // A node's rate needs two readings, seconds apart.
    assert_eq!(ask("nodes").await["kind"], "NodeMetricsList");
    let groups = cluster.client.list_api_groups().await.unwrap();
    assert!(
        groups
            .groups
            .iter()
            .any(|group| group.name == "metrics.k8s.io")
    );
}
