//! Keeps the Node object and its Lease alive: registers or adopts the node, writes its status when
//! it changed, renews the Lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::NodeContext;
use crate::events::EventType;
use crate::node_object::{self, RuntimeView};
use crate::pod_network::{self, PodNetwork};

/// The namespace of node Leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Time between two looks at a node that is not ready: at first its network and its runtime are on
/// their way.
const RETRY_EARLY: Duration = Duration::from_millis(200);
const EARLY: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

/// Registers the node and keeps its status and Lease current until cancelled.
pub(crate) async fn run(node: Arc<NodeContext>, shutdown: CancellationToken) {
    let timings = node.config.timings.clone();
    let mut keeper = Keeper {
        node,
        runtime: RuntimeView::default(),
        network: PodNetwork::default(),
        last_report: None,
        starting: true,
        begun: Instant::now(),
    };
    let mut status_tick = tokio::time::interval(timings.node_status_interval);
    let mut lease_tick = tokio::time::interval(timings.lease_renew_interval);
    for tick in [&mut status_tick, &mut lease_tick] {
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = status_tick.tick() => {
                if let Err(error) = keeper.report().await {
                    tracing::warn!(%error, "node status not written, trying again");
                    // Sooner than the next tick while the node is not known at all.
                    if keeper.last_report.is_none() {
                        status_tick.reset_after(RETRY);
                    }
                } else if !keeper.is_ready() {
                    status_tick.reset_after(keeper.retry());
                }
            }
            // A new condition is told at once: the scheduler has to know.
            () = keeper.node.pressure.changed.notified() => status_tick.reset_immediately(),
            _ = lease_tick.tick() => {
                if let Err(error) = keeper.renew_lease().await {
                    tracing::warn!(%error, "node lease not renewed, trying again");
                    lease_tick.reset_after(RETRY);
                }
            }
        }
    }
}

struct Keeper {
    node: Arc<NodeContext>,
    runtime: RuntimeView,
    network: PodNetwork,
    last_report: Option<Instant>,
    starting: bool,
    begun: Instant,
}

impl Keeper {
    fn name(&self) -> &str {
        &self.node.config.node_name
    }

    /// When to look again at a node that is not ready.
    fn retry(&self) -> Duration {
        if self.begun.elapsed() < EARLY {
            RETRY_EARLY
        } else {
            RETRY
        }
    }

    fn is_ready(&self) -> bool {
        self.runtime.no_network.is_none()
            && matches!(&self.runtime.status, Some(Ok(response)) if response.status.as_ref()
            .is_some_and(|status| status.conditions.iter().all(|condition| condition.status)))
    }

    async fn report(&mut self) -> Result<(), kube::Error> {
        let node = self.node.clone();
        let config = &node.config;
        let api: Api<Node> = Api::all(node.client.clone());
        let existing = match api.get_opt(self.name()).await? {
            Some(existing) => existing,
            None => {
                let created = api
                    .create(&PostParams::default(), &node_object::node(config))
                    .await?;
                tracing::info!(node = self.name(), "node registered");
                created
            }
        };
        let existing = self.adopt(&api, existing).await?;
        self.runtime.no_network = self.network.update(&existing, config, &node.cri).await;
        self.refresh_runtime().await;
        let old = existing.status.clone().unwrap_or_default();
        let now = Timestamp::now();
        let new = node_object::status(
            config,
            &node.resources,
            &self.runtime,
            &node.pressure.conditions(),
            Some(&old),
            now,
        );
        let due = self
            .last_report
            .is_none_or(|at| at.elapsed() >= config.timings.node_status_report_interval);
        if due || node_object::differs(&old, &new) {
            let patch = Patch::Merge(json!({"status": new}));
            api.patch_status(self.name(), &PatchParams::default(), &patch)
                .await?;
            self.last_report = Some(Instant::now());
            self.tell(&existing, &old, &new);
        }
        Ok(())
    }

    /// Gives an existing Node the labels that this agent vouches for, and the networks that it is
    /// configured with.
    async fn adopt(&self, api: &Api<Node>, existing: Node) -> Result<Node, kube::Error> {
        let config = &self.node.config;
        let wanted = node_object::labels(config);
        let have = existing.metadata.labels.clone().unwrap_or_default();
        let labelled = wanted
            .iter()
            .all(|(key, value)| have.get(key) == Some(value));
        let mut patch = json!({});
        if !labelled {
            patch["metadata"] = json!({"labels": wanted});
        }
        if pod_network::networks_of(&existing).is_empty() && !config.pod_cidrs.is_empty() {
            let texts = pod_network::texts(&config.pod_cidrs);
            patch["spec"] = json!({"podCIDR": texts[0], "podCIDRs": texts});
        }
        if patch.as_object().is_some_and(serde_json::Map::is_empty) {
            return Ok(existing);
        }
        api.patch(self.name(), &PatchParams::default(), &Patch::Merge(patch))
            .await
    }

    async fn refresh_runtime(&mut self) {
        let cri = &self.node.cri;
        self.runtime.status = Some(cri.status().await.map_err(|error| error.to_string()));
        if matches!(self.runtime.status, Some(Ok(_))) {
            if let Ok(version) = cri.version().await {
                self.runtime.version = Some(version);
            }
            if let Ok(images) = cri.list_images().await {
                self.runtime.images = images;
            }
        }
    }

    /// Events about the node: its start, and each change of readiness.
    fn tell(&mut self, existing: &Node, old: &NodeStatus, new: &NodeStatus) {
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: existing.metadata.name.clone(),
            uid: existing.metadata.uid.clone(),
            ..Default::default()
        };
        let recorder = &self.node.recorder;
        if std::mem::take(&mut self.starting) {
            recorder.record(
                about.clone(),
                EventType::Normal,
                "Starting",
                "Starting kubelet.",
            );
        }
        let ready = |status: &NodeStatus| {
            let condition = status
                .conditions
                .iter()
                .flatten()
                .find(|c| c.type_ == "Ready");
            condition.map(|condition| condition.status.clone())
        };
        let (before, after) = (ready(old), ready(new));
        if before != after {
            let (reason, word) = match after.as_deref() {
                Some("True") => ("NodeReady", "NodeReady"),
                _ => ("NodeNotReady", "NodeNotReady"),
            };
            let message = format!("Node {} status is now: {word}", self.name());
            recorder.record(about, EventType::Normal, reason, message);
        }
    }

    async fn renew_lease(&self) -> Result<(), kube::Error> {
        let api: Api<Lease> = Api::namespaced(self.node.client.clone(), LEASE_NAMESPACE);
        let now = MicroTime(Timestamp::now());
        let patch = Patch::Merge(json!({"spec": {
            "holderIdentity": self.name(), "renewTime": now,
            "leaseDurationSeconds": self.node.config.timings.lease_duration.as_secs()}}));
        match api
            .patch(self.name(), &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(error)) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
        let nodes: Api<Node> = Api::all(self.node.client.clone());
        // The Lease goes with its Node.
        let owner = nodes
            .get_opt(self.name())
            .await?
            .and_then(|node| node.metadata.uid)
            .map(|uid| OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: self.name().into(),
                uid,
                ..Default::default()
            });
        let duration = self.node.config.timings.lease_duration.as_secs();
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name().into()),
                namespace: Some(LEASE_NAMESPACE.into()),
                owner_references: owner.map(|owner| vec![owner]),
                ..Default::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.name().into()),
                lease_duration_seconds: i32::try_from(duration).ok(),
                renew_time: Some(now),
                ..Default::default()
            }),
        };
        api.create(&PostParams::default(), &lease).await.map(|_| ())
    }
}
