//! Fake nodes against a real API server in this process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{sync::Arc, time::Duration};

use hull_apiserver::{ApiServer, ApiServerConfig, UserInfo, pki::ClusterPki};
use hull_node::fake::{self, FAKE_LABEL, FakeNodesConfig, Progress};
use hull_store::embedded::EmbeddedStore;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Binding, Node, Pod},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Longest wait for something that must happen.
const TIMEOUT: Duration = Duration::from_secs(60);

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::time::timeout(TIMEOUT, wait).await;
    assert!(outcome.is_ok(), "{what}: not within {TIMEOUT:?}");
}

async fn nodes(client: &Client) -> Vec<Node> {
    let api: Api<Node> = Api::all(client.clone());
    let fakes = ListParams::default().labels(FAKE_LABEL);
    api.list(&fakes).await.unwrap().items
}

/// Creates a pod that is bound to the first fake node.
async fn bound_pod(client: &Client, name: &str) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "none"}]}
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let target = json!({
        "metadata": {"name": name}, "target": {"kind": "Node", "name": "fake-00000"}
    });
    let binding: Binding = serde_json::from_value(target).unwrap();
    let params = PostParams::default();
    let bound = pods.create_subresource::<_, serde_json::Value>("binding", name, &params, &binding);
    bound.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_live_pods_run_and_go_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("store")).unwrap();
    let pki = ClusterPki::load_or_create(folder.path().join("pki"), &[]).unwrap();
    let server = ApiServer::new(ApiServerConfig::new(pki), Arc::new(store))
        .await
        .unwrap();
    let client = Client::new(server.local_service(UserInfo::admin()), "default");
    let config = FakeNodesConfig {
        count: 12,
        lease_interval: Duration::from_secs(1),
        ..FakeNodesConfig::default()
    };
    let stop = CancellationToken::new();
    let fakes = fake::run(
        client.clone(),
        config,
        Arc::new(Progress::default()),
        stop.clone(),
    );
    let fakes = tokio::spawn(fakes);
    until("the nodes are ready", async || {
        let nodes = nodes(&client).await;
        let ready = nodes.iter().filter(|node| {
            let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|c| c.type_ == "Ready" && c.status == "True")
        });
        ready.count() == 12
    })
    .await;
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let renewed = async || {
        let lease = leases.get("fake-00011").await.unwrap();
        lease.spec.unwrap().renew_time.unwrap()
    };
    let first = renewed().await;
    until("the lease is renewed", async || renewed().await != first).await;

    bound_pod(&client, "web").await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    until("the pod runs and has an address", async || {
        let status = pods.get("web").await.unwrap().status.unwrap();
        status.phase.as_deref() == Some("Running") && status.pod_ip.is_some()
    })
    .await;
    pods.delete("web", &DeleteParams::default()).await.unwrap();
    until("the deleted pod goes", async || {
        pods.get_opt("web").await.unwrap().is_none()
    })
    .await;

    stop.cancel();
    fakes.await.unwrap();
    assert!(nodes(&client).await.is_empty(), "nodes are left");
}
