//! Wiring: one informer per kind, all controllers on them.

use std::{fmt::Debug, sync::Arc, time::Duration};

use hull_client::events::{self, Recorder};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount},
};
use kube::{Api, Client, Resource, runtime::watcher};
use serde::de::DeserializeOwned;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    deployment::DeploymentController,
    garbage::GarbageCollector,
    namespace::NamespaceController,
    node_lifecycle::{LEASE_NAMESPACE, MONITOR_GRACE_PERIOD, NodeLifecycleController},
    pod_gc::{PodGcController, TERMINATED_PODS_KEPT},
    replicaset::ReplicaSetController,
    root_ca::{self, RootCaController},
    runtime::{
        Controller, Informer, Writer, controller, metrics::ControllersMetrics, writer::KubeWriter,
    },
    service_account::ServiceAccountController,
    taint_eviction::TaintEvictionController,
};

/// What events say under From.
const COMPONENT: &str = "controller-manager";

/// How the controllers work.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Keys worked on at a time, per controller.
    pub workers: usize,
    /// Silence after which a node counts as lost.
    pub node_monitor_grace_period: Duration,
    /// Most ended pods kept.
    pub terminated_pods_kept: usize,
    /// The cluster's CA (PEM), published to each namespace if it is given.
    pub cluster_ca: Option<String>,
    /// Where the figures go.
    pub metrics: ControllersMetrics,
}

impl Default for ControllersConfig {
    fn default() -> Self {
        ControllersConfig {
            workers: 5,
            node_monitor_grace_period: MONITOR_GRACE_PERIOD,
            terminated_pods_kept: TERMINATED_PODS_KEPT,
            cluster_ca: None,
            metrics: ControllersMetrics::default(),
        }
    }
}

/// Why the controllers stopped.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {}

/// What the wiring hands around.
struct Wiring {
    client: Client,
    tasks: TaskTracker,
    stop: CancellationToken,
    config: ControllersConfig,
}

impl Wiring {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks
            .spawn(self.stop.clone().run_until_cancelled_owned(task));
    }

    /// Starts feeding the informer with all objects of its kind.
    fn feed<K>(&self, informer: &Arc<Informer<K>>)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.feed_from(
            informer,
            Api::all(self.client.clone()),
            watcher::Config::default(),
        );
    }

    fn feed_from<K>(&self, informer: &Arc<Informer<K>>, api: Api<K>, config: watcher::Config)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.spawn(informer.clone().run(api, config));
    }

    fn control(&self, controller: Arc<dyn Controller>) {
        let (workers, metrics) = (self.config.workers, self.config.metrics.clone());
        self.tasks.spawn(controller::run(
            controller,
            workers,
            metrics,
            self.stop.clone(),
        ));
    }
}

/// One informer per kind.
#[derive(Default)]
struct Informers {
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
    sets: Arc<Informer<ReplicaSet>>,
    deployments: Arc<Informer<Deployment>>,
    /// Only those of the nodes.
    leases: Arc<Informer<Lease>>,
    /// Only those with the cluster's CA.
    root_cas: Arc<Informer<ConfigMap>>,
}

impl Informers {
    fn feed(&self, wiring: &Wiring) {
        wiring.feed(&self.pods);
        wiring.feed(&self.nodes);
        wiring.feed(&self.namespaces);
        wiring.feed(&self.accounts);
        wiring.feed(&self.sets);
        wiring.feed(&self.deployments);
        let leases = Api::namespaced(wiring.client.clone(), LEASE_NAMESPACE);
        wiring.feed_from(&self.leases, leases, watcher::Config::default());
        let by_name = format!("metadata.name={}", root_ca::NAME);
        wiring.feed_from(
            &self.root_cas,
            Api::all(wiring.client.clone()),
            watcher::Config::default().fields(&by_name),
        );
    }

    async fn synced(&self) {
        tokio::join!(
            self.pods.synced(),
            self.nodes.synced(),
            self.namespaces.synced(),
            self.accounts.synced(),
            self.sets.synced(),
            self.deployments.synced(),
            self.leases.synced(),
            self.root_cas.synced(),
        );
    }
}

fn controllers(
    informers: &Informers,
    config: &ControllersConfig,
    writer: &Arc<dyn Writer>,
    recorder: &Recorder,
) -> Vec<Arc<dyn Controller>> {
    let i = informers;
    let (writer, recorder) = (|| writer.clone(), || recorder.clone());
    let mut controllers: Vec<Arc<dyn Controller>> = vec![
        ReplicaSetController::new(writer(), recorder(), i.sets.clone(), i.pods.clone()),
        DeploymentController::new(
            writer(),
            recorder(),
            i.deployments.clone(),
            i.sets.clone(),
            i.pods.clone(),
        ),
        NamespaceController::new(writer(), i.namespaces.clone()),
        ServiceAccountController::new(writer(), i.namespaces.clone(), i.accounts.clone()),
        NodeLifecycleController::new(
            writer(),
            recorder(),
            i.nodes.clone(),
            i.leases.clone(),
            i.pods.clone(),
            config.node_monitor_grace_period,
        ),
        TaintEvictionController::new(writer(), recorder(), i.nodes.clone(), i.pods.clone()),
        PodGcController::new(
            writer(),
            i.pods.clone(),
            i.nodes.clone(),
            config.terminated_pods_kept,
        ),
    ];
    if let Some(certificate) = &config.cluster_ca {
        controllers.push(RootCaController::new(
            writer(),
            certificate.clone(),
            i.namespaces.clone(),
            i.root_cas.clone(),
        ));
    }
    controllers
}

/// Runs all controllers until `shutdown`. An API server that is away is waited for.
///
/// # Errors
/// None today.
pub async fn run(
    client: Client,
    config: ControllersConfig,
    shutdown: CancellationToken,
) -> Result<(), ControllersError> {
    // Stops everything also when this future is dropped.
    let stop = shutdown.child_token();
    let _stop = stop.clone().drop_guard();
    let wiring = Wiring {
        client: client.clone(),
        tasks: TaskTracker::new(),
        stop,
        config,
    };
    let writer: Arc<dyn Writer> = Arc::new(KubeWriter::new(client.clone()));
    let (recorder, records) = Recorder::channel();
    wiring.spawn({
        let (client, stop) = (client.clone(), wiring.stop.clone());
        async move { events::run(client, COMPONENT, records, stop).await }
    });

    let informers = Informers::default();
    let mut controllers = controllers(&informers, &wiring.config, &writer, &recorder);
    let collector = GarbageCollector::new(writer);
    collector.follow(&informers.pods);
    collector.follow(&informers.nodes);
    collector.follow(&informers.namespaces);
    collector.follow(&informers.accounts);
    collector.follow(&informers.sets);
    collector.follow(&informers.deployments);
    informers.feed(&wiring);
    wiring
        .tasks
        .spawn(collector.clone().monitor(client, wiring.stop.clone()));
    controllers.push(collector);

    // Acting on half a list would create what is there already.
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = informers.synced() => {
            tracing::info!("informers synced; controllers start");
            for controller in controllers {
                wiring.control(controller);
            }
            shutdown.cancelled().await;
        }
    }
    wiring.tasks.close();
    wiring.tasks.wait().await;
    Ok(())
}
