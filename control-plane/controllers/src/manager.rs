//! Wiring: all controllers on shared informers.

use std::{sync::Arc, time::Duration};

use hull_client::{
    events::{self, Recorder},
    leader::{LeaderElection, run_as_leader},
    timeouts::{scaled, with_deadlines},
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, runtime::watcher};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    autoscaler::HorizontalPodAutoscalerController,
    certificates::{CertificatesController, SigningCa},
    cluster_role_aggregation::ClusterRoleAggregationController,
    cronjob::CronJobController,
    daemonset::DaemonSetController,
    deployment::DeploymentController,
    disruption::{DisruptionController, Scales},
    endpoints::{EndpointSliceController, EndpointSliceMirroringController, EndpointsController},
    garbage::GarbageCollector,
    informers::{Informers, Scope},
    job::{JobController, JobOrphansController},
    load_balancer::{AddressRange, LoadBalancerController},
    namespace::NamespaceController,
    node_ipam::{NodeCidrs, NodeIpamController},
    node_lifecycle::{LEASE_NAMESPACE, MONITOR_GRACE_PERIOD, NodeLifecycleController},
    pod_gc::{PodGcController, TERMINATED_PODS_KEPT},
    replicaset::{ReplicaSetController, ReplicationControllerController},
    resource_quota::ResourceQuotaController,
    root_ca::{self, RootCaController},
    runtime::{Controller, Writer, controller, metrics::ControllersMetrics, writer::KubeWriter},
    service_account::ServiceAccountController,
    statefulset::StatefulSetController,
    taint_eviction::TaintEvictionController,
    ttl_after_finished::TtlAfterFinishedController,
    volumes::{
        ClaimBinderController, ClaimProtectionController, EphemeralVolumeController,
        VolumeProtectionController, VolumeReclaimController,
    },
};

/// What events say under From.
const COMPONENT: &str = "controller-manager";

/// How the controllers work.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Keys worked on at a time, per controller.
    pub workers: usize,
    /// Silence after which a node counts as lost; the default is multiplied by the factor for
    /// slow machines.
    pub node_monitor_grace_period: Duration,
    /// Most ended pods kept.
    pub terminated_pods_kept: usize,
    /// The cluster's CA (PEM), published to each namespace if it is given.
    pub cluster_ca: Option<String>,
    /// What certificate signing requests are signed with; `None`: nobody answers them.
    pub signing_ca: Option<SigningCa>,
    /// What services of type LoadBalancer get addresses from; empty: they wait for somebody else.
    pub load_balancer_pool: Vec<AddressRange>,
    /// The networks that nodes get theirs for pods from; `None`: somebody else gives them.
    pub node_cidrs: Option<NodeCidrs>,
    /// With several instances: only the leader works. `None`: this is the only one.
    pub leader_election: Option<LeaderElection>,
    /// Where the figures go.
    pub metrics: ControllersMetrics,
}

impl Default for ControllersConfig {
    fn default() -> Self {
        ControllersConfig {
            workers: 5,
            node_monitor_grace_period: scaled(MONITOR_GRACE_PERIOD),
            terminated_pods_kept: TERMINATED_PODS_KEPT,
            cluster_ca: None,
            signing_ca: None,
            load_balancer_pool: Vec::new(),
            node_cidrs: None,
            leader_election: None,
            metrics: ControllersMetrics::default(),
        }
    }
}

/// Why the controllers stopped.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {}

/// What the wiring hands around.
struct Wiring {
    informers: Informers,
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    tasks: TaskTracker,
    stop: CancellationToken,
    config: ControllersConfig,
    collector: Arc<GarbageCollector>,
}

impl Wiring {
    fn writer(&self) -> Arc<dyn Writer> {
        self.writer.clone()
    }

    fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Runs what `make` gives once the informers that it asked for are complete: acting on half
    /// a list would create what is there already.
    fn control<C: Controller>(&self, make: impl FnOnce(&Scope<'_>) -> Arc<C>) {
        let scope = self.informers.scope();
        let controller: Arc<dyn Controller> = make(&scope);
        let synced = scope.synced();
        let (workers, metrics) = (self.config.workers, self.config.metrics.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            if stop.run_until_cancelled(synced).await.is_some() {
                tracing::info!(controller = controller.name(), "controller starts");
                controller::run(controller, workers, metrics, stop).await;
            }
        });
    }

    fn workloads(&self) {
        self.control(|i| ReplicaSetController::new(self.writer(), self.recorder(), i.of(), i.of()));
        self.control(|i| {
            ReplicationControllerController::new(self.writer(), self.recorder(), i.of(), i.of())
        });
        self.control(|i| {
            DeploymentController::new(self.writer(), self.recorder(), i.of(), i.of(), i.of())
        });
        self.control(|i| JobController::new(self.writer(), self.recorder(), i.of(), i.of()));
        self.control(|i| JobOrphansController::new(self.writer(), i.of(), i.of()));
        self.control(|i| {
            StatefulSetController::new(
                self.writer(),
                self.recorder(),
                i.of(),
                i.of(),
                i.of(),
                i.of(),
            )
        });
        self.control(|i| {
            DaemonSetController::new(
                self.writer(),
                self.recorder(),
                i.of(),
                i.of(),
                i.of(),
                i.of(),
            )
        });
        self.control(|i| CronJobController::new(self.writer(), self.recorder(), i.of(), i.of()));
        self.control(|i| TtlAfterFinishedController::new(self.writer(), i.of()));
    }

    fn autoscaling(&self) {
        self.control(|i| {
            HorizontalPodAutoscalerController::new(self.writer(), self.recorder(), i.of(), i.of())
        });
    }

    fn budgets(&self) {
        self.control(|i| {
            let scales = Scales {
                deployments: i.of(),
                sets: i.of(),
                controllers: i.of(),
                stateful: i.of(),
            };
            DisruptionController::new(self.writer(), self.recorder(), i.of(), i.of(), scales)
        });
    }

    fn volumes(&self) {
        self.control(|i| {
            ClaimBinderController::new(self.writer(), self.recorder(), i.of(), i.of(), i.of())
        });
        self.control(|i| {
            VolumeReclaimController::new(self.writer(), self.recorder(), i.of(), i.of())
        });
        self.control(|i| ClaimProtectionController::new(self.writer(), i.of(), i.of()));
        self.control(|i| VolumeProtectionController::new(self.writer(), i.of()));
        self.control(|i| {
            EphemeralVolumeController::new(self.writer(), self.recorder(), i.of(), i.of())
        });
    }

    fn quotas(&self) {
        let objects = self.collector.clone();
        self.control(|i| {
            ResourceQuotaController::new(self.writer(), i.of(), i.of(), i.of(), i.of(), objects)
        });
    }

    fn services(&self) {
        self.control(|i| {
            EndpointSliceController::new(
                self.writer(),
                self.recorder(),
                i.of(),
                i.of(),
                i.of(),
                i.of(),
            )
        });
        self.control(|i| {
            EndpointsController::new(self.writer(), self.recorder(), i.of(), i.of(), i.of())
        });
        self.control(|i| {
            EndpointSliceMirroringController::new(self.writer(), i.of(), i.of(), i.of())
        });
    }

    fn load_balancers(&self) {
        let pool = self.config.load_balancer_pool.clone();
        if !pool.is_empty() {
            self.control(|i| {
                LoadBalancerController::new(self.writer(), self.recorder(), pool, i.of())
            });
        }
    }

    fn nodes(&self) {
        let grace_period = self.config.node_monitor_grace_period;
        let leases = self.informers.part_of(
            |client| Api::<Lease>::namespaced(client, LEASE_NAMESPACE),
            watcher::Config::default(),
        );
        self.control(|i| {
            NodeLifecycleController::new(
                self.writer(),
                self.recorder(),
                i.of(),
                i.with(leases),
                i.of(),
                grace_period,
            )
        });
        self.control(|i| {
            TaintEvictionController::new(self.writer(), self.recorder(), i.of(), i.of())
        });
        if let Some(cidrs) = &self.config.node_cidrs {
            self.control(|i| {
                NodeIpamController::new(self.writer(), self.recorder(), cidrs, i.of())
            });
        }
        let kept = self.config.terminated_pods_kept;
        self.control(|i| PodGcController::new(self.writer(), i.of(), i.of(), kept));
    }

    fn access(&self) {
        self.control(|i| ClusterRoleAggregationController::new(self.writer(), i.of()));
    }

    fn certificates(&self) {
        if let Some(ca) = self.config.signing_ca.clone() {
            self.control(|i| CertificatesController::new(self.writer(), ca, i.of(), i.of()));
        }
    }

    fn namespaces(&self) {
        self.control(|i| NamespaceController::new(self.writer(), i.of()));
        self.control(|i| ServiceAccountController::new(self.writer(), i.of(), i.of()));
        if let Some(certificate) = self.config.cluster_ca.clone() {
            let by_name = format!("metadata.name={}", root_ca::NAME);
            let config = watcher::Config::default().fields(&by_name);
            let maps = self.informers.part_of(Api::all, config);
            self.control(|i| {
                RootCaController::new(self.writer(), certificate, i.of(), i.with(maps))
            });
        }
    }
}

/// Runs all controllers until `shutdown`, with leader election while this instance leads. An API
/// server that is away is waited for.
///
/// # Errors
/// None today.
pub async fn run(
    client: Client,
    config: ControllersConfig,
    shutdown: CancellationToken,
) -> Result<(), ControllersError> {
    let client = with_deadlines(client);
    let Some(election) = config.leader_election.clone() else {
        return work(client, config, shutdown).await;
    };
    run_as_leader(client.clone(), election, shutdown, |stop| {
        work(client.clone(), config.clone(), stop)
    })
    .await
}

async fn work(
    client: Client,
    config: ControllersConfig,
    shutdown: CancellationToken,
) -> Result<(), ControllersError> {
    // Stops everything also when this future is dropped.
    let stop = shutdown.child_token();
    let _stop = stop.clone().drop_guard();
    let tasks = TaskTracker::new();
    let writer: Arc<dyn Writer> = Arc::new(KubeWriter::new(client.clone()));
    let (recorder, records) = Recorder::channel();
    tasks.spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move { events::run(client, COMPONENT, records, stop).await }
    });
    let collector = GarbageCollector::new(writer.clone());
    let informers = Informers::new(
        client.clone(),
        tasks.clone(),
        stop.clone(),
        collector.clone(),
    );
    let wiring = Wiring {
        informers,
        writer,
        recorder,
        tasks,
        stop,
        config,
        collector: collector.clone(),
    };
    wiring.workloads();
    wiring.autoscaling();
    wiring.budgets();
    wiring.quotas();
    wiring.volumes();
    wiring.services();
    wiring.load_balancers();
    wiring.nodes();
    wiring.namespaces();
    wiring.access();
    wiring.certificates();
    let monitor = collector.clone().monitor(client, wiring.stop.clone());
    wiring.tasks.spawn(monitor);
    wiring.control(|_| collector);
    wiring.informers.start();
    shutdown.cancelled().await;
    wiring.tasks.close();
    wiring.tasks.wait().await;
    Ok(())
}
