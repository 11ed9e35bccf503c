//! The node's network for pods: waiting for it, writing it down, telling the runtime.

use std::path::PathBuf;

use hull_node::PodNetworkConfig;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::{Cluster, NODE, eventually_async};

async fn cluster(pod_cidr: Option<&str>) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::without_agent().await;
    let directory = cluster.directory.path().join("net.d");
    cluster.config.pod_network = Some(PodNetworkConfig {
        directory: directory.clone(),
        masquerade: false,
        host_ports: false,
        tunnel_overhead: 0,
    });
    cluster.config.pod_cidrs = pod_cidr
        .map(|text| text.parse().unwrap())
        .into_iter()
        .collect();
    cluster.start_agent();
    (cluster, directory.join("10-hull.conflist"))
}

fn nodes(cluster: &Cluster) -> Api<Node> {
    Api::all(cluster.client.clone())
}

async fn ready(cluster: &Cluster) -> Option<NodeCondition> {
    let node = nodes(cluster).get_opt(NODE).await.unwrap()?;
    let conditions = node.status?.conditions?;
    conditions.into_iter().find(|c| c.type_ == "Ready")
}

async fn is_ready(cluster: &Cluster) -> bool {
    ready(cluster).await.is_some_and(|c| c.status == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn node_is_ready_once_the_cluster_gave_it_a_pod_cidr() {
    let (mut cluster, conflist) = cluster(None).await;
    eventually_async("a reason", async || ready(&cluster).await.is_some()).await;
    let condition = ready(&cluster).await.unwrap();
    assert_eq!(condition.status, "False");
    let message = condition.message.unwrap();
    assert!(message.contains("network not ready"), "{message}");
    assert!(message.contains("no pod CIDR yet"), "{message}");
    assert!(!conflist.exists());

    let networks = json!({"spec": {"podCIDR": "10.42.7.0/24", "podCIDRs": ["10.42.7.0/24"]}});
    let patch = PatchParams::default();
    nodes(&cluster)
        .patch(NODE, &patch, &Patch::Merge(networks))
        .await
        .unwrap();
    eventually_async("ready", async || is_ready(&cluster).await).await;
    let text = std::fs::read_to_string(&conflist).unwrap();
    assert!(text.contains("10.42.7.0/24"), "{text}");
    assert_eq!(cluster.cri.called("UpdateRuntimeConfig 10.42.7.0/24"), 1);

    // While the agent is away somebody puts another configuration there.
    cluster.stop_agent().await;
    let theirs = conflist.with_file_name("50-theirs.conflist");
    std::fs::write(&theirs, "theirs").unwrap();
    cluster.start_agent();
    eventually_async("ours is gone", async || !conflist.exists()).await;
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
    eventually_async("still ready", async || is_ready(&cluster).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_pod_cidr_is_the_nodes_own() {
    let (cluster, conflist) = cluster(Some("10.50.3.0/24")).await;
    eventually_async("ready", async || is_ready(&cluster).await).await;
    let spec = nodes(&cluster).get(NODE).await.unwrap().spec.unwrap();
    assert_eq!(spec.pod_cidr.as_deref(), Some("10.50.3.0/24"));
    assert_eq!(spec.pod_cidrs.unwrap(), ["10.50.3.0/24"]);
    let text = std::fs::read_to_string(&conflist).unwrap();
    assert!(text.contains("10.50.3.0/24"), "{text}");
}
