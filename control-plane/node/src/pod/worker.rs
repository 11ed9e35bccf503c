//! The task of one pod: observes, plans, carries out, reports, until the pod is gone.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::health::Health;
use super::identity::PodIdentity;
use super::memory::Memory;
use super::plan::{self, Plan, Step};
use super::recover;
use super::status::{StatusInput, status};
use super::status_writer::StatusWriter;
use crate::context::NodeContext;
use crate::cri::{ContainerPhase, CriError, ObservedPod, sandbox};
use crate::env::fields::PodFacts;
use crate::events::EventType;
use crate::objects::Watched;
use crate::probes::Probes;
use crate::volumes::tokens::PodTokens;
use crate::{termination_message, volumes};

/// Plans carried out in one synchronisation before other pods' events are looked at again.
const MAX_ROUNDS: usize = 32;

/// The newest state of a pod in the API.
#[derive(Debug, Clone)]
pub(crate) struct PodUpdate {
    /// The object.
    pub pod: Arc<Pod>,
    /// The object is gone from the API server.
    pub removed: bool,
}

impl PodUpdate {
    /// The pod has to end.
    pub(crate) fn ending(&self) -> bool {
        self.removed || self.pod.metadata.deletion_timestamp.is_some()
    }
}

/// What a worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifecycle {
    /// Brings the pod to what its spec says.
    Syncing,
    /// Brings it down; ends with the worker.
    Terminating,
}

/// A pod's worker.
pub(crate) struct Worker {
    pub(super) node: Arc<NodeContext>,
    pub(super) identity: PodIdentity,
    pub(super) updates: watch::Receiver<PodUpdate>,
    pub(super) poke: Arc<Notify>,
    pub(super) memory: Memory,
    pub(super) health: Arc<Mutex<Health>>,
    pub(super) probes: Probes,
    pub(super) status: StatusWriter,
    pub(super) subscriptions: Vec<Arc<Watched>>,
    tokens: PodTokens,
    start_time: Timestamp,
    reported_waits: HashSet<(String, String)>,
}

impl Worker {
    /// A worker for a pod; `poke` wakes it.
    pub(crate) fn new(
        node: Arc<NodeContext>,
        identity: PodIdentity,
        updates: watch::Receiver<PodUpdate>,
        poke: Arc<Notify>,
    ) -> Self {
        let pod = updates.borrow().pod.clone();
        let timings = &node.config.timings;
        let health: Arc<Mutex<Health>> = Arc::default();
        let subscriptions = node.objects.subscribe(&pod, &poke);
        Worker {
            memory: Memory::new(timings.backoff_initial, timings.backoff_max),
            probes: Probes::new(node.clone(), identity.clone(), health.clone(), poke.clone()),
            status: StatusWriter::start(node.client.clone(), identity.clone()),
            health,
            subscriptions,
            tokens: PodTokens::default(),
            start_time: Timestamp::now(),
            reported_waits: HashSet::new(),
            node,
            identity,
            updates,
            poke,
        }
    }

    /// Runs until the pod is gone.
    pub(crate) async fn run(mut self) {
        tracing::info!(pod = %self.identity, "pod worker starts");
        loop {
            match self.lifecycle() {
                Lifecycle::Terminating => {
                    self.terminate().await;
                    tracing::info!(pod = %self.identity, "pod worker ends");
                    return;
                }
                Lifecycle::Syncing => {}
            }
            let wake = self.sync().await;
            tokio::select! {
                changed = self.updates.changed() => {
                    // The manager went away: the agent shuts down, pods keep running.
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.poke.notified() => {}
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    fn lifecycle(&self) -> Lifecycle {
        if self.updates.borrow().ending() {
            Lifecycle::Terminating
        } else {
            Lifecycle::Syncing
        }
    }

    /// The pod as last seen in the API.
    pub(super) fn pod(&self) -> Arc<Pod> {
        self.updates.borrow().pod.clone()
    }

    pub(super) fn pod_dir(&self) -> PathBuf {
        self.node.config.pod_dir(&self.identity.uid)
    }

    pub(super) fn event(&self, event_type: EventType, reason: &'static str, message: String) {
        self.node
            .recorder
            .record(self.identity.reference(None), event_type, reason, message);
    }

    pub(super) fn container_event(
        &self,
        name: &str,
        event_type: EventType,
        reason: &'static str,
        message: String,
    ) {
        let pod = self.pod();
        let inits = pod
            .spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten());
        let list = if inits.into_iter().any(|container| container.name == name) {
            "initContainers"
        } else {
            "containers"
        };
        let reference = self
            .identity
            .reference(Some(format!("spec.{list}{{{name}}}")));
        self.node
            .recorder
            .record(reference, event_type, reason, message);
    }

    /// What CRI reports, with lost containers and termination messages added.
    pub(super) async fn observe(&self) -> Result<ObservedPod, CriError> {
        let mut observed = self.node.cri.observe(&self.identity.uid).await?;
        let pod = self.pod();
        recover::add_lost_containers(&pod, &mut observed);
        let log_dir = self.log_dir();
        let pod_dir = self.pod_dir();
        for container in &mut observed.containers {
            if container.phase == ContainerPhase::Exited {
                termination_message::add(container, &pod_dir, &log_dir);
            }
        }
        Ok(observed)
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        let identity = &self.identity;
        self.node
            .config
            .pod_log_dir(&identity.namespace, &identity.name, &identity.uid)
    }

    pub(super) fn facts<'a>(&self, pod: &'a Pod, observed: &ObservedPod) -> PodFacts<'a> {
        let spec = pod.spec.clone().unwrap_or_default();
        let host_ip = self.node.config.node_ip.to_string();
        let pod_ips = if spec.host_network.unwrap_or(false) {
            vec![host_ip.clone()]
        } else {
            observed
                .ready_sandbox()
                .map(|sandbox| sandbox.ips.clone())
                .unwrap_or_default()
        };
        PodFacts {
            pod,
            identity: self.identity.clone(),
            hostname: sandbox::hostname(&self.identity.name, &spec),
            node_name: self.node.config.node_name.clone(),
            host_ip,
            pod_ips,
            allocatable_cpu_milli: self.node.resources.cpu_milli,
            allocatable_memory: self.node.resources.memory_bytes,
        }
    }

    /// Observes, plans and carries out until nothing is left to do; the time until the next look.
    async fn sync(&mut self) -> Duration {
        let retry = self.node.config.timings.sync_retry;
        let resync = self.node.config.timings.resync_interval;
        for _ in 0..MAX_ROUNDS {
            if self.updates.borrow_and_update().ending() {
                return Duration::ZERO;
            }
            let observed = match self.observe().await {
                Ok(observed) => observed,
                Err(error) => {
                    tracing::warn!(pod = %self.identity, %error, "cannot observe pod, trying again");
                    return retry;
                }
            };
            let pod = self.pod();
            self.probes.reconcile(&pod, &observed);
            let now = Timestamp::now();
            let deadline = self.check_deadline(&pod, now);
            let mut plan = plan::plan(
                &pod,
                &observed,
                &self.memory,
                &self.health.lock().clone(),
                now,
            );
            if plan.finished {
                // Nothing of a finished pod runs again: its objects need no watch.
                self.subscriptions.clear();
            }
            self.publish(&pod, &observed, &plan);
            self.report_waits(&plan);
            if !plan.finished
                && let Err(wait) = self.set_up_volumes(&pod, &observed, &plan).await
            {
                return wait;
            }
            if plan.steps.is_empty() {
                let wake = plan.wake.unwrap_or(resync).min(deadline.unwrap_or(resync));
                return wake.min(resync);
            }
            for step in std::mem::take(&mut plan.steps) {
                if self.updates.borrow().ending() {
                    return Duration::ZERO;
                }
                if !self.execute(step, &pod, &observed).await {
                    break;
                }
            }
        }
        Duration::from_millis(100)
    }

    /// Gives the pod up when its activeDeadlineSeconds have passed; the time left otherwise.
    fn check_deadline(&mut self, pod: &Pod, now: Timestamp) -> Option<Duration> {
        let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
        if plan::api_finished(pod) || self.memory.failed.is_some() {
            return None;
        }
        let started = pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref());
        let started = started.map_or(self.start_time, |time| time.0);
        let left = seconds - (now.as_second() - started.as_second());
        if left > 0 {
            return Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)));
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.event(EventType::Normal, "DeadlineExceeded", message.into());
        self.memory.failed = Some(("DeadlineExceeded".into(), message.into()));
        None
    }

    pub(super) fn publish(&mut self, pod: &Pod, observed: &ObservedPod, plan: &Plan) {
        let host_ip = self.node.config.node_ip.to_string();
        let health = self.health.lock().clone();
        let status = status(&StatusInput {
            pod,
            observed,
            plan,
            memory: &self.memory,
            health: &health,
            host_ip: &host_ip,
            previous: self.status.last(),
            start_time: self.start_time,
            now: Timestamp::now(),
        });
        self.status.publish(status, pod.status.as_ref());
    }

    /// One BackOff event for each wait that begins.
    fn report_waits(&mut self, plan: &Plan) {
        let mut present = HashSet::new();
        for (name, waiting) in &plan.waiting {
            let key = (name.clone(), waiting.reason.clone());
            let new = !self.reported_waits.contains(&key);
            present.insert(key);
            if !new {
                continue;
            }
            let message = match waiting.reason.as_str() {
                "CrashLoopBackOff" => {
                    format!(
                        "Back-off restarting failed container {name} in pod {}",
                        self.identity
                    )
                }
                "ImagePullBackOff" => {
                    let image = self
                        .container(name)
                        .and_then(|c| c.image)
                        .unwrap_or_default();
                    self.container_event(
                        name,
                        EventType::Warning,
                        "Failed",
                        "Error: ImagePullBackOff".into(),
                    );
                    format!("Back-off pulling image \"{image}\"")
                }
                _ => continue,
            };
            let event_type = if waiting.reason == "CrashLoopBackOff" {
                EventType::Warning
            } else {
                EventType::Normal
            };
            self.container_event(name, event_type, "BackOff", message);
        }
        self.reported_waits = present;
    }

    /// A container or init container of the pod by name.
    pub(super) fn container(&self, name: &str) -> Option<Container> {
        let pod = self.pod();
        let spec = pod.spec.as_ref()?;
        let mut all = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        all.find(|container| container.name == name).cloned()
    }

    /// Writes volumes; `Err` with the delay when the pod cannot go on without them.
    async fn set_up_volumes(
        &mut self,
        pod: &Arc<Pod>,
        observed: &ObservedPod,
        plan: &Plan,
    ) -> Result<(), Duration> {
        let any = pod
            .spec
            .as_ref()
            .is_some_and(|s| s.volumes.iter().flatten().next().is_some());
        if !any {
            return Ok(());
        }
        let objects = self.node.objects.snapshot(&self.subscriptions).await;
        let client = &self.node.client;
        let now = Timestamp::now();
        self.tokens.refresh(client, &self.identity, pod, now).await;
        let facts = self.facts(pod, observed);
        let result = volumes::set_up(&self.pod_dir(), pod, &facts, &objects, &self.tokens);
        let Err(error) = result else { return Ok(()) };
        tracing::warn!(pod = %self.identity, %error, "volume not set up");
        let starts = plan.steps.iter().any(|step| {
            matches!(
                step,
                Step::StartContainer { .. } | Step::CreateSandbox { .. }
            )
        });
        // What runs goes on with the content it has.
        if !starts {
            return Ok(());
        }
        self.event(EventType::Warning, "FailedMount", error.to_string());
        Err(self.node.config.timings.sync_retry)
    }
}
