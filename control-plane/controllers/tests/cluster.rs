//! All controllers and the scheduler against a real API server in this process; a stand-in for
//! the node agent makes pods ready and lets them go.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use hull_apiserver::{ApiServer, ApiServerConfig, UserInfo, pki::ClusterPki};
use hull_controllers::ControllersConfig;
use hull_scheduler::SchedulerConfig;
use hull_store::embedded::EmbeddedStore;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        coordination::v1::Lease,
        core::v1::{ConfigMap, Namespace, Node, Pod, ResourceQuota, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Longest wait for something that must happen.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long a node may be silent in these tests.
const NODE_GRACE: Duration = Duration::from_secs(3);

struct Cluster {
    admin: Client,
    stop: CancellationToken,
    _server: Arc<ApiServer>,
    _folder: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn cluster() -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("store")).unwrap();
    let pki = ClusterPki::load_or_create(folder.path().join("pki"), &[]).unwrap();
    let ca = pki.ca_pem().to_string();
    let server = ApiServer::new(ApiServerConfig::new(pki), Arc::new(store))
        .await
        .unwrap();
    let client = |user| Client::new(server.local_service(user), "default");
    let stop = CancellationToken::new();
    let config = ControllersConfig {
        cluster_ca: Some(ca),
        node_monitor_grace_period: NODE_GRACE,
        ..ControllersConfig::default()
    };
    tokio::spawn({
        let (client, stop) = (client(UserInfo::controller_manager()), stop.clone());
        async move { hull_controllers::run(client, config, stop).await.unwrap() }
    });
    tokio::spawn({
        let (client, stop) = (client(UserInfo::scheduler()), stop.clone());
        async move {
            hull_scheduler::run(client, SchedulerConfig::default(), stop)
                .await
                .unwrap()
        }
    });
    let admin = client(UserInfo::admin());
    Cluster {
        admin,
        stop,
        _server: server,
        _folder: folder,
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while !holds().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what}: not within {TIMEOUT:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn ready() -> Value {
    json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now().to_string()}
    ]}})
}

/// Makes the node's pods ready, except those of the image `broken`, and ends deleted ones.
async fn run_pods(client: Client, node: String) {
    let pods = Api::<Pod>::all(client.clone());
    let mut events = std::pin::pin!(watcher(pods, watcher::Config::default()).applied_objects());
    while let Some(event) = events.next().await {
        let Ok(pod) = event else { continue };
        let spec = pod.spec.clone().unwrap();
        if spec.node_name.as_deref() != Some(&*node) {
            continue;
        }
        let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap());
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            };
            let _ = api.delete(&pod.name_any(), &now).await;
        } else if spec.containers[0].image.as_deref() != Some("broken")
            && pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref())
                != Some("Running")
        {
            let patch = Patch::Strategic(ready());
            let _ = api
                .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                .await;
        }
    }
}

async fn renew_lease(client: Client, node: String) {
    let leases = Api::<Lease>::namespaced(client, "kube-node-lease");
    let lease = serde_json::from_value(json!({"metadata": {"name": node}, "spec": {}})).unwrap();
    let _ = leases.create(&PostParams::default(), &lease).await;
    loop {
        let patch = Patch::Merge(json!({"spec": {"renewTime": MicroTime(Timestamp::now())}}));
        let _ = leases.patch(&node, &PatchParams::default(), &patch).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

impl Cluster {
    /// A node that works until the token is cancelled.
    async fn node(&self, name: &str) -> CancellationToken {
        let nodes = Api::<Node>::all(self.admin.clone());
        let node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let status = json!({"status": {
            "allocatable": {"cpu": "16", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}]
        }});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
        let alive = self.stop.child_token();
        let (client, name) = (self.admin.clone(), name.to_owned());
        let agent = run_pods(client.clone(), name.clone());
        tokio::spawn(alive.clone().run_until_cancelled_owned(agent));
        tokio::spawn(
            alive
                .clone()
                .run_until_cancelled_owned(renew_lease(client, name)),
        );
        alive
    }

    async fn deployment(&self, spec: Value) {
        let mut full = json!({
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")
        });
        for (key, value) in spec.as_object().unwrap() {
            full[key] = value.clone();
        }
        let deployment = json!({"metadata": {"name": "web"}, "spec": full});
        let deployment = serde_json::from_value(deployment).unwrap();
        self.deployments()
            .create(&PostParams::default(), &deployment)
            .await
            .unwrap();
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::default_namespaced(self.admin.clone())
    }

    async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.deployments()
            .patch("web", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    async fn pods(&self) -> Vec<Pod> {
        let pods = Api::<Pod>::default_namespaced(self.admin.clone());
        pods.list(&ListParams::default()).await.unwrap().items
    }

    async fn sets(&self) -> Vec<ReplicaSet> {
        let sets = Api::<ReplicaSet>::default_namespaced(self.admin.clone());
        sets.list(&ListParams::default()).await.unwrap().items
    }

    /// Complete with so many pods, all of that image.
    async fn complete(&self, image: &str, replicas: i32) {
        until(&format!("{replicas} pods of {image}"), async || {
            let deployment = self.deployments().get("web").await.unwrap();
            let status = deployment.status.unwrap_or_default();
            let complete = status.observed_generation == deployment.metadata.generation
                && status.updated_replicas.unwrap_or(0) == replicas
                && status.available_replicas.unwrap_or(0) == replicas
                && status.replicas.unwrap_or(0) == replicas;
            let pods = self.pods().await;
            complete
                && pods.len() == replicas as usize
                && pods.iter().all(|pod| {
                    pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image)
                })
        })
        .await;
    }
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]}
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_scales_and_rolls_back() {
    let cluster = cluster().await;
    cluster.node("a").await;
    cluster.deployment(json!({})).await;
    cluster.complete("v1", 3).await;
    cluster.change(json!({"template": template("v2")})).await;
    cluster.complete("v2", 3).await;
    cluster.change(json!({"replicas": 5})).await;
    cluster.complete("v2", 5).await;
    cluster
        .change(json!({"template": template("v1"), "replicas": 2}))
        .await;
    cluster.complete("v1", 2).await;
    let sets = cluster.sets().await;
    assert_eq!(
        sets.len(),
        2,
        "the old set was used again: defaults do not make a new template"
    );
    let deployment = cluster.deployments().get("web").await.unwrap();
    assert_eq!(
        deployment.annotations()["deployment.kubernetes.io/revision"],
        "3"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_keeps_its_bounds_and_a_quota_counts_what_is_there() {
    let cluster = cluster().await;
    cluster.node("a").await;
    cluster.deployment(json!({"replicas": 1})).await;
    let autoscaler = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"minReplicas": 3, "maxReplicas": 5,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}
    }))
    .unwrap();
    Api::<HorizontalPodAutoscaler>::default_namespaced(cluster.admin.clone())
        .create(&PostParams::default(), &autoscaler)
        .await
        .unwrap();
    cluster.complete("v1", 3).await;
    let quotas = Api::<ResourceQuota>::default_namespaced(cluster.admin.clone());
    let quota = serde_json::from_value(json!({
        "metadata": {"name": "q"},
        "spec": {"hard": {"pods": "9", "count/deployments.apps": "2"}}
    }))
    .unwrap();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    let used = async |name: &str| {
        let status = quotas.get("q").await.unwrap().status;
        let used = status.and_then(|status| status.used)?;
        Some(used.get(name)?.0.clone())
    };
    until("what was there before the quota", async || {
        used("pods").await.as_deref() == Some("3")
            && used("count/deployments.apps").await.as_deref() == Some("1")
    })
    .await;
    let background = DeleteParams::background();
    cluster
        .deployments()
        .delete("web", &background)
        .await
        .unwrap();
    until("what was deleted is given back", async || {
        used("pods").await.as_deref() == Some("0")
            && used("count/deployments.apps").await.as_deref() == Some("0")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_version_leaves_the_old_one_serving() {
    let cluster = cluster().await;
    cluster.node("a").await;
    cluster.deployment(json!({})).await;
    cluster.complete("v1", 3).await;
    cluster
        .change(json!({"template": template("broken")}))
        .await;
    until("a pod of the broken version", async || {
        cluster.pods().await.len() == 4
    })
    .await;
    cluster.change(json!({"template": template("v3")})).await;
    cluster.complete("v3", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_deployment_takes_everything_with_it() {
    let cluster = cluster().await;
    cluster.node("a").await;
    for policy in [PropagationPolicy::Background, PropagationPolicy::Foreground] {
        cluster.deployment(json!({})).await;
        cluster.complete("v1", 3).await;
        let options = DeleteParams {
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        };
        cluster.deployments().delete("web", &options).await.unwrap();
        until("all is gone", async || {
            cluster
                .deployments()
                .get_opt("web")
                .await
                .unwrap()
                .is_none()
                && cluster.sets().await.is_empty()
                && cluster.pods().await.is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphaned_pods_live_on_and_are_adopted_again() {
    let cluster = cluster().await;
    cluster.node("a").await;
    cluster.deployment(json!({})).await;
    cluster.complete("v1", 3).await;
    let before: Vec<_> = cluster.pods().await.iter().map(|pod| pod.uid()).collect();
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    cluster.deployments().delete("web", &orphan).await.unwrap();
    until("the deployment is gone", async || {
        cluster
            .deployments()
            .get_opt("web")
            .await
            .unwrap()
            .is_none()
    })
    .await;
    assert_eq!(cluster.sets().await.len(), 1);
    cluster.deployment(json!({})).await;
    cluster.complete("v1", 3).await;
    let after: Vec<_> = cluster.pods().await.iter().map(|pod| pod.uid()).collect();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_emptied() {
    let cluster = cluster().await;
    cluster.node("a").await;
    let namespaces = Api::<Namespace>::all(cluster.admin.clone());
    let shop = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    namespaces
        .create(&PostParams::default(), &shop)
        .await
        .unwrap();
    let accounts = Api::<ServiceAccount>::namespaced(cluster.admin.clone(), "shop");
    until("its account", async || {
        accounts.get_opt("default").await.unwrap().is_some()
    })
    .await;
    let maps = Api::<ConfigMap>::namespaced(cluster.admin.clone(), "shop");
    let certificate = async || {
        let map = maps.get_opt("kube-root-ca.crt").await.unwrap()?;
        map.data?.get("ca.crt").cloned()
    };
    until("the CA", async || {
        certificate()
            .await
            .is_some_and(|pem| pem.starts_with("-----BEGIN CERTIFICATE"))
    })
    .await;
    let deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")}
    }))
    .unwrap();
    let deployments = Api::<Deployment>::namespaced(cluster.admin.clone(), "shop");
    deployments
        .create(&PostParams::default(), &deployment)
        .await
        .unwrap();
    let pods = Api::<Pod>::namespaced(cluster.admin.clone(), "shop");
    until("its pods", async || {
        pods.list(&ListParams::default()).await.unwrap().items.len() == 2
    })
    .await;
    namespaces
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    until("the namespace is gone", async || {
        namespaces.get_opt("shop").await.unwrap().is_none()
    })
    .await;
    assert!(
        pods.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert!(
        maps.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_move_away_from_a_lost_node() {
    let cluster = cluster().await;
    let lost = cluster.node("lost").await;
    let mut hurried = template("v1");
    hurried["spec"]["tolerations"] = json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
         "tolerationSeconds": 1}
    ]);
    cluster.deployment(json!({"template": hurried})).await;
    cluster.complete("v1", 3).await;
    cluster.node("well").await;
    lost.cancel();
    until("three pods on the other node", async || {
        let there = |pod: &&Pod| {
            pod.spec.as_ref().unwrap().node_name.as_deref() == Some("well")
                && pod.metadata.deletion_timestamp.is_none()
        };
        cluster.pods().await.iter().filter(there).count() == 3
    })
    .await;
    let nodes = Api::<Node>::all(cluster.admin.clone());
    let taints = nodes
        .get("lost")
        .await
        .unwrap()
        .spec
        .unwrap()
        .taints
        .unwrap();
    assert!(taints.iter().any(|taint| {
        taint.key == "node.kubernetes.io/unreachable" && taint.effect == "NoExecute"
    }));
    // The pods that nobody on the lost node can finish go with the node.
    nodes
        .delete("lost", &DeleteParams::default())
        .await
        .unwrap();
    until("the pods of the deleted node are gone", async || {
        cluster.pods().await.len() == 3
    })
    .await;
}
