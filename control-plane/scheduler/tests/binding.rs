//! The scheduler against a real API server in this process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{sync::Arc, time::Duration};

use hull_apiserver::{ApiServer, ApiServerConfig, UserInfo, pki::ClusterPki};
use hull_scheduler::SchedulerConfig;
use hull_store::embedded::EmbeddedStore;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Longest wait for something that must happen.
const TIMEOUT: Duration = Duration::from_secs(60);

struct Cluster {
    admin: Client,
    server: Arc<ApiServer>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

async fn cluster() -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("store")).unwrap();
    let pki = ClusterPki::load_or_create(folder.path().join("pki"), &[]).unwrap();
    let server = ApiServer::new(ApiServerConfig::new(pki), Arc::new(store))
        .await
        .unwrap();
    let admin = Client::new(server.local_service(UserInfo::admin()), "default");
    Cluster {
        admin,
        server,
        stop: CancellationToken::new(),
        _folder: folder,
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cluster {
    fn start_scheduler(&self) -> tokio::task::JoinHandle<()> {
        let client = Client::new(self.server.local_service(UserInfo::scheduler()), "default");
        let stop = self.stop.clone();
        tokio::spawn(async move {
            hull_scheduler::run(client, SchedulerConfig::default(), stop)
                .await
                .unwrap();
        })
    }

    async fn node(&self, name: &str, cpu: &str, spec: Value) {
        let nodes = Api::<Node>::all(self.admin.clone());
        let node = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}));
        nodes
            .create(&PostParams::default(), &node.unwrap())
            .await
            .unwrap();
        let status = json!({"status": {
            "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}]
        }});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    async fn pod(&self, name: &str, cpu: &str) {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": [{
                "name": "c", "image": "nginx", "resources": {"requests": {"cpu": cpu}}
            }]}
        });
        let pod = serde_json::from_value(pod).unwrap();
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.admin.clone())
    }

    async fn node_of(&self, pod: &str) -> Option<String> {
        self.pods().get(pod).await.unwrap().spec.unwrap().node_name
    }

    async fn events_of(&self, pod: &str) -> Vec<(String, String, i32)> {
        let events = Api::<Event>::default_namespaced(self.admin.clone());
        let events = events.list(&ListParams::default()).await.unwrap();
        events
            .into_iter()
            .filter(|event| event.involved_object.name.as_deref() == Some(pod))
            .map(|event| {
                let reason = event.reason.clone().unwrap_or_default();
                (
                    reason,
                    event.message.clone().unwrap_or_default(),
                    event.count.unwrap_or(0),
                )
            })
            .collect()
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while !holds().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what}: not within {TIMEOUT:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binds_a_pod_and_says_so() {
    let cluster = cluster().await;
    cluster.node("small", "1", json!({})).await;
    cluster.node("large", "8", json!({})).await;
    cluster.start_scheduler();
    cluster.pod("web", "2").await;
    until("web is bound", async || {
        cluster.node_of("web").await.is_some()
    })
    .await;
    assert_eq!(cluster.node_of("web").await.as_deref(), Some("large"));
    let expected = (
        "Scheduled".into(),
        "Successfully assigned default/web to large".into(),
        1,
    );
    until("the event", async || {
        cluster.events_of("web").await.contains(&expected)
    })
    .await;
    let conditions = cluster
        .pods()
        .get("web")
        .await
        .unwrap()
        .status
        .unwrap()
        .conditions
        .unwrap();
    let scheduled = conditions
        .iter()
        .find(|c| c.type_ == "PodScheduled")
        .unwrap();
    assert_eq!(scheduled.status, "True");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_the_filters_that_refuse_and_binds_once_they_let_it() {
    let cluster = cluster().await;
    let tainted = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
    cluster.node("a", "1", json!({})).await;
    cluster.node("b", "8", tainted.clone()).await;
    cluster.node("c", "8", tainted).await;
    cluster.start_scheduler();
    cluster.pod("web", "2").await;
    let message = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {k: v}. \
         preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    let refused = async || {
        let events = cluster.events_of("web").await;
        events
            .iter()
            .any(|(reason, text, _)| reason == "FailedScheduling" && text == message)
    };
    until("FailedScheduling", refused).await;
    until("PodScheduled=False", async || {
        let status = cluster.pods().get("web").await.unwrap().status.unwrap();
        status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "PodScheduled"
                && condition.status == "False"
                && condition.reason.as_deref() == Some("Unschedulable")
                && condition.message.as_deref() == Some(message)
        })
    })
    .await;
    let nodes = Api::<Node>::all(cluster.admin.clone());
    let untaint = Patch::Merge(json!({"spec": {"taints": null}}));
    nodes
        .patch("c", &PatchParams::default(), &untaint)
        .await
        .unwrap();
    until("web is bound", async || {
        cluster.node_of("web").await.as_deref() == Some("c")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fills_nodes_exactly_and_goes_on_when_pods_leave() {
    let cluster = cluster().await;
    cluster.node("a", "2", json!({})).await;
    cluster.node("b", "2", json!({})).await;
    cluster.start_scheduler();
    for n in 0..6 {
        cluster.pod(&format!("p{n}"), "1").await;
    }
    let bound = async || {
        let pods = cluster.pods().list(&ListParams::default()).await.unwrap();
        let places = pods.into_iter().filter_map(|pod| {
            let node = pod.spec.as_ref()?.node_name.clone()?;
            Some((pod.name_any(), node))
        });
        places.collect::<Vec<_>>()
    };
    until("four are bound", async || bound().await.len() == 4).await;
    let places = bound().await;
    assert_eq!(places.iter().filter(|(_, node)| node == "a").count(), 2);
    let gone = &places[0].0;
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    cluster.pods().delete(gone, &now).await.unwrap();
    until("a fifth takes its place", async || bound().await.len() == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_scheduler_run_goes_on_where_the_first_stopped() {
    let cluster = cluster().await;
    cluster.node("a", "4", json!({})).await;
    let first = cluster.start_scheduler();
    cluster.pod("one", "3").await;
    until("one is bound", async || {
        cluster.node_of("one").await.is_some()
    })
    .await;
    first.abort();
    let _ = first.await;
    cluster.pod("two", "3").await;
    cluster.pod("three", "1").await;
    cluster.start_scheduler();
    until("three is bound", async || {
        cluster.node_of("three").await.is_some()
    })
    .await;
    assert_eq!(
        cluster.node_of("two").await,
        None,
        "the first pod still counts"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binds_hundreds_of_pods_on_many_nodes() {
    const NODES: usize = 50;
    const PODS: usize = 500;
    let cluster = cluster().await;
    for n in 0..NODES {
        cluster.node(&format!("n{n:03}"), "16", json!({})).await;
    }
    for n in 0..PODS {
        cluster.pod(&format!("p{n}"), "100m").await;
    }
    let start = std::time::Instant::now();
    cluster.start_scheduler();
    let unbound = ListParams::default().fields("spec.nodeName=");
    until("all are bound", async || {
        cluster
            .pods()
            .list(&unbound)
            .await
            .unwrap()
            .items
            .is_empty()
    })
    .await;
    println!(
        "{:.0} pods bound/s",
        PODS as f64 / start.elapsed().as_secs_f64()
    );
    let pods = cluster.pods().list(&ListParams::default()).await.unwrap();
    let mut per_node = std::collections::HashMap::new();
    for pod in pods {
        *per_node
            .entry(pod.spec.unwrap().node_name.unwrap())
            .or_insert(0) += 1;
    }
    assert!(
        per_node.values().all(|count| *count <= 2 * PODS / NODES),
        "{per_node:?}"
    );
}
