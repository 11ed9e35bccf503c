//! A real API server on a real store, in process, with a node agent on the fake runtime.

mod https;

pub use https::{connect, get};

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hull_apiserver::pki::ClusterPki;
use hull_apiserver::{ApiServer, ApiServerConfig, UserInfo};
use hull_node::{NodeConfig, NodeError, ServerTls};
use hull_store::embedded::EmbeddedStore;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fake_cri::FakeCri;

pub const NODE: &str = "n1";
/// Far beyond what anything here takes; only a failure waits so long.
const DEADLINE: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub directory: tempfile::TempDir,
    pub api: Arc<ApiServer>,
    pub pki: ClusterPki,
    pub client: Client,
    pub cri: FakeCri,
    pub config: NodeConfig,
    agent: Option<(CancellationToken, JoinHandle<Result<(), NodeError>>)>,
    cri_server: Option<crate::fake_cri::Serving>,
}

impl Cluster {
    /// Everything runs.
    pub async fn start() -> Self {
        let mut cluster = Cluster::without_agent().await;
        cluster.start_agent();
        cluster
    }

    pub async fn without_agent() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let pki = ClusterPki::load_or_create(path.join("pki"), &[]).unwrap();
        let store = Arc::new(EmbeddedStore::open(path.join("store.redb")).unwrap());
        let api = ApiServer::new(ApiServerConfig::new(pki.clone()), store)
            .await
            .unwrap();
        let client = Client::new(api.local_service(UserInfo::admin()), "default");
        let config = config(path.to_owned(), &pki);
        let mut cluster = Cluster {
            cri: FakeCri::default(),
            agent: None,
            cri_server: None,
            directory,
            api,
            pki,
            client,
            config,
        };
        cluster.start_cri();
        cluster
    }

    pub fn start_cri(&mut self) {
        let socket = self.directory.path().join("cri.sock");
        self.cri_server = Some(self.cri.serve(&socket));
    }

    pub fn stop_cri(&mut self) {
        drop(self.cri_server.take().unwrap());
        std::fs::remove_file(self.directory.path().join("cri.sock")).unwrap();
    }

    pub fn start_agent(&mut self) {
        let client = Client::new(self.api.local_service(UserInfo::node(NODE)), "default");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(hull_node::run(
            client,
            self.config.clone(),
            shutdown.clone(),
        ));
        self.agent = Some((shutdown, task));
    }

    pub async fn stop_agent(&mut self) {
        let (shutdown, task) = self.agent.take().unwrap();
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates a pod bound to the node.
    pub async fn create_pod(&self, name: &str, spec: Value) -> Pod {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name}, "spec": {"nodeName": NODE}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .unwrap()
    }

    pub async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), "default");
        let object: K = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    /// Waits until the pod satisfies a condition.
    pub async fn wait_pod(&self, name: &str, what: &str, condition: impl Fn(&Pod) -> bool) -> Pod {
        let api = self.pods();
        let begun = Instant::now();
        loop {
            let pod = api.get_opt(name).await.unwrap();
            if let Some(pod) = pod.clone().filter(|pod| condition(pod)) {
                return pod;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "pod {name} not {what}: {:#?}",
                pod.map(|p| p.status)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn wait_running(&self, name: &str) -> Pod {
        self.wait_pod(name, "running and ready", |pod| {
            phase(pod) == "Running" && container(pod).is_some_and(|status| status.ready)
        })
        .await
    }

    pub async fn wait_waiting(&self, name: &str, reason: &str) -> String {
        let pod = self
            .wait_pod(name, reason, |pod| {
                waiting(pod).is_some_and(|(found, _)| found == reason)
            })
            .await;
        waiting(&pod).unwrap().1
    }

    /// The messages of a pod's events with a reason, once there is one.
    pub async fn wait_event(&self, name: &str, reason: &str) -> String {
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let begun = Instant::now();
        loop {
            let events = api.list(&ListParams::default()).await.unwrap();
            let found = events.items.iter().find(|event| {
                event.involved_object.name.as_deref() == Some(name)
                    && event.reason.as_deref() == Some(reason)
            });
            if let Some(event) = found {
                return event.message.clone().unwrap();
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "no event {reason} of {name}: {events:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The same of one that asks the API server.
pub async fn eventually_async(what: &str, condition: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn config(directory: PathBuf, pki: &ClusterPki) -> NodeConfig {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut config = NodeConfig::new(NODE, address);
    let pair = pki.kubelet_serving(NODE, &["127.0.0.1".into()]).unwrap();
    config.cri_endpoint = format!("unix://{}", directory.join("cri.sock").display());
    config.root_dir = directory.join("node");
    config.pod_log_dir = directory.join("logs");
    config.listen = free_port();
    config.server_tls = Some(ServerTls {
        certificate: pair.renewable().unwrap(),
        client_ca_pem: pki.ca_pem().as_bytes().to_vec(),
    });
    // What the machine of the tests has is not the tests' matter.
    config.eviction.thresholds.clear();
    let timings = &mut config.timings;
    timings.relist_interval = Duration::from_millis(50);
    timings.backoff_initial = Duration::from_millis(1500);
    timings.sync_retry = Duration::from_millis(200);
    timings.eviction_interval = Duration::from_millis(100);
    timings.log_rotation_interval = Duration::from_millis(100);
    timings.static_pod_interval = Duration::from_millis(100);
    timings.node_status_interval = Duration::from_millis(500);
    config
}

pub fn phase(pod: &Pod) -> String {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.clone())
        .unwrap_or_default()
}

/// The status of the pod's first container.
pub fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// Why the first container waits.
pub fn waiting(pod: &Pod) -> Option<(String, String)> {
    let waiting = container(pod)?.state.as_ref()?.waiting.as_ref()?;
    Some((
        waiting.reason.clone()?,
        waiting.message.clone().unwrap_or_default(),
    ))
}
