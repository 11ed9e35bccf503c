//! The IO around [`Core`]: watches in, bindings, events and conditions out.

use std::{sync::Arc, time::Instant};

use futures::{StreamExt, stream::FuturesUnordered};
use hull_client::{
    events::{self, EventType, Recorder, reference},
    leader::run_as_leader,
    timeouts::with_deadlines,
    trim::trim,
};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
        policy::v1::PodDisruptionBudget,
        storage::v1::{CSINode, StorageClass},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::SchedulerConfig,
    core::{Change, Core, Decision},
    framework::{Bind, BindError, PreBind},
    metrics::{AttemptLabels, QueueLabels, SchedulerMetrics},
    plugins::{DefaultBinder, VolumeBinder, default_framework},
    pod::PodInfo,
    preemptor::Preemptor,
};

/// Watched objects waiting for the core; the watches stop reading when it is full.
const INPUT_QUEUE: usize = 4096;
/// Events applied between two decisions.
const INPUT_BURST: usize = 256;
/// Conditions waiting to be written; more are dropped (the next attempt writes again).
const CONDITION_QUEUE: usize = 1024;
/// Conditions written at a time.
const CONDITION_CONCURRENCY: usize = 8;

/// Why the scheduler stopped.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// A watch task ended although it retries for ever.
    #[error("the watches of pods and nodes ended")]
    WatchesEnded,
    /// A binding task panicked.
    #[error("a binding task failed: {0}")]
    Binder(#[source] tokio::task::JoinError),
}

enum Input {
    Pod(Box<Change<Pod>>),
    Node(Box<Change<Node>>),
    Namespace(Box<Change<Namespace>>),
    Budget(Box<Change<PodDisruptionBudget>>),
    Claim(Box<Change<PersistentVolumeClaim>>),
    Volume(Box<Change<PersistentVolume>>),
    Class(Box<Change<StorageClass>>),
    CsiNode(Box<Change<CSINode>>),
}

/// Runs the scheduler until `shutdown`, with leader election while this instance leads. An API
/// server that is away is waited for.
///
/// # Errors
/// [`SchedulerError`].
pub async fn run(
    client: Client,
    config: SchedulerConfig,
    shutdown: CancellationToken,
) -> Result<(), SchedulerError> {
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
    config: SchedulerConfig,
    shutdown: CancellationToken,
) -> Result<(), SchedulerError> {
    // Stops the helpers also when this future is dropped.
    let helpers = shutdown.child_token();
    let _stop = helpers.clone().drop_guard();
    let tasks = TaskTracker::new();
    let (input, inputs) = mpsc::channel(INPUT_QUEUE);
    macro_rules! follow {
        ($($kind:ty => $input:path),*) => {$({
            let feed = watch(Api::<$kind>::all(client.clone()), input.clone(), |change| {
                $input(Box::new(change))
            });
            tasks.spawn(helpers.clone().run_until_cancelled_owned(feed));
        })*};
    }
    // Claims and volumes first: what is known of them when pods come is not asked twice.
    follow!(
        StorageClass => Input::Class, CSINode => Input::CsiNode, PersistentVolume => Input::Volume,
        PersistentVolumeClaim => Input::Claim, Pod => Input::Pod, Node => Input::Node,
        Namespace => Input::Namespace, PodDisruptionBudget => Input::Budget
    );
    drop(input);
    let (recorder, records) = Recorder::channel();
    tasks.spawn({
        let (client, component) = (client.clone(), config.scheduler_name.clone());
        let helpers = helpers.clone();
        async move { events::run(client, &component, records, helpers).await }
    });
    let (conditions, unschedulable) = mpsc::channel(CONDITION_QUEUE);
    tasks.spawn(
        helpers
            .clone()
            .run_until_cancelled_owned(write_conditions(client.clone(), unschedulable)),
    );
    tasks.close();
    let core = Core::new(default_framework(config.scoring_strategy), &config);
    let choices = core.cache().volumes().choices();
    let mut pre_binds = core.pre_binds();
    pre_binds.push(Arc::new(VolumeBinder::new(client.clone(), choices)));
    let scheduler = Scheduler {
        pre_binds,
        core,
        preemptor: Preemptor {
            client: client.clone(),
            recorder: recorder.clone(),
            metrics: config.metrics.clone(),
        },
        binder: Arc::new(DefaultBinder::new(client)),
        recorder,
        conditions,
        metrics: config.metrics.clone(),
        bind_concurrency: config.bind_concurrency.max(1),
    };
    let outcome = scheduler.run(inputs, &shutdown).await;
    helpers.cancel();
    tasks.wait().await;
    outcome
}

async fn watch<K>(api: Api<K>, input: mpsc::Sender<Input>, wrap: impl Fn(Change<K>) -> Input)
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let stream = watcher(api, watcher::Config::default()).modify(trim);
    let mut stream = std::pin::pin!(stream.default_backoff());
    let mut failing = false;
    while let Some(event) = stream.next().await {
        failing &= event.is_err();
        let change = match event {
            Ok(watcher::Event::Init) => Change::ListBegins,
            Ok(watcher::Event::InitApply(object)) => Change::Listed(object),
            Ok(watcher::Event::InitDone) => Change::ListEnds,
            Ok(watcher::Event::Apply(object)) => Change::Applied(object),
            Ok(watcher::Event::Delete(object)) => Change::Deleted(object),
            // A kind that the API server does not serve fails for as long as it runs.
            Err(error) => {
                if std::mem::replace(&mut failing, true) {
                    tracing::debug!(%error, "watch failed again; it is started again");
                } else {
                    tracing::warn!(%error, "watch failed; it is started again");
                }
                continue;
            }
        };
        if input.send(wrap(change)).await.is_err() {
            return;
        }
    }
}

struct Scheduler {
    core: Core,
    pre_binds: Vec<Arc<dyn PreBind>>,
    preemptor: Preemptor,
    binder: Arc<dyn Bind>,
    recorder: Recorder,
    conditions: mpsc::Sender<(Arc<PodInfo>, String)>,
    metrics: SchedulerMetrics,
    bind_concurrency: usize,
}

struct Bound {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    outcome: Result<(), BindError>,
    seconds: f64,
}

impl Scheduler {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        shutdown: &CancellationToken,
    ) -> Result<(), SchedulerError> {
        let mut bindings = JoinSet::new();
        loop {
            let may_decide = self.core.is_synced() && bindings.len() < self.bind_concurrency;
            let ready = may_decide && self.core.has_active();
            let wake = self.core.next_wake().filter(|_| may_decide && !ready);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(bound) = bindings.join_next(), if !bindings.is_empty() => {
                    self.finish(bound.map_err(SchedulerError::Binder)?);
                }
                input = inputs.recv() => {
                    let Some(input) = input else { return Err(SchedulerError::WatchesEnded) };
                    self.observe(input);
                    for _ in 1..INPUT_BURST {
                        let Ok(input) = inputs.try_recv() else { break };
                        self.observe(input);
                    }
                }
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into()),
                    if wake.is_some() => {}
                () = std::future::ready(()), if ready => {}
            }
            // Decisions and events take turns, so neither starves the other.
            if self.core.is_synced()
                && bindings.len() < self.bind_concurrency
                && let Some((pod, node)) = self.decide()
            {
                let (pre_binds, binder) = (self.pre_binds.clone(), self.binder.clone());
                bindings.spawn(bind(pre_binds, binder, pod, node));
            }
        }
        // Bindings already sent are let finish: their outcome is in the API either way.
        while bindings.join_next().await.is_some() {}
        Ok(())
    }

    fn observe(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Pod(change) => self.core.observe_pod(*change, now),
            Input::Node(change) => self.core.observe_node(*change, now),
            Input::Namespace(change) => self.core.observe_namespace(*change),
            Input::Budget(change) => self.core.observe_budget(*change),
            Input::Claim(change) => self.core.observe_claim(*change, now),
            Input::Volume(change) => self.core.observe_volume(*change, now),
            Input::Class(change) => self.core.observe_class(*change, now),
            Input::CsiNode(change) => self.core.observe_csi_node(*change, now),
        }
    }

    fn decide(&mut self) -> Option<(Arc<PodInfo>, Arc<str>)> {
        let started = Instant::now();
        let decision = self.core.decide(started)?;
        self.metrics
            .decision_seconds
            .observe(started.elapsed().as_secs_f64());
        self.show_queue();
        match decision {
            Decision::Assigned { pod, node } => Some((pod, node)),
            Decision::Unschedulable {
                pod,
                diagnosis,
                preemption,
            } => {
                self.count("unschedulable");
                if let Some(preemption) = preemption {
                    // Asynchronous: the next decisions do not wait for it.
                    tokio::spawn(self.preemptor.clone().run(pod.clone(), preemption));
                }
                self.report_failure(&pod, diagnosis.message());
                None
            }
        }
    }

    fn finish(&mut self, bound: Bound) {
        let Bound {
            pod,
            node,
            outcome,
            seconds,
        } = bound;
        self.metrics.binding_seconds.observe(seconds);
        match outcome {
            Ok(()) => {
                self.core.bound(&pod);
                self.count("scheduled");
                tracing::info!(pod = %pod_key(&pod), %node, "pod bound");
                self.recorder.event(
                    reference(&pod.pod),
                    EventType::Normal,
                    "Scheduled",
                    format!("Successfully assigned {} to {node}", pod_key(&pod)),
                );
            }
            Err(BindError::Gone(error)) => {
                tracing::info!(pod = %pod_key(&pod), %error, "pod deleted before it was bound");
                self.core.gone(&pod, &node, Instant::now());
            }
            Err(error) => {
                tracing::warn!(pod = %pod_key(&pod), %node, %error, "binding failed");
                self.count("error");
                self.core.bind_failed(&pod, &node, Instant::now());
                self.report_failure(&pod, error.to_string());
            }
        }
    }

    fn report_failure(&self, pod: &Arc<PodInfo>, message: String) {
        tracing::info!(pod = %pod_key(pod), message, "pod not scheduled");
        self.recorder.event(
            reference(&pod.pod),
            EventType::Warning,
            "FailedScheduling",
            message.clone(),
        );
        if !has_condition(&pod.pod, &message)
            && self.conditions.try_send((pod.clone(), message)).is_err()
        {
            tracing::warn!(pod = %pod_key(pod), "condition not queued: too many are waiting");
        }
    }

    fn count(&self, result: &'static str) {
        self.metrics
            .attempts
            .get_or_create(&AttemptLabels { result })
            .inc();
    }

    fn show_queue(&self) {
        let sizes = self.core.queue_sizes();
        for (queue, size) in [
            ("active", sizes.active),
            ("backoff", sizes.backoff),
            ("unschedulable", sizes.unschedulable),
            ("gated", sizes.gated),
        ] {
            let gauge = self.metrics.pending.get_or_create(&QueueLabels { queue });
            gauge.set(i64::try_from(size).unwrap_or(i64::MAX));
        }
    }
}

async fn bind(
    pre_binds: Vec<Arc<dyn PreBind>>,
    binder: Arc<dyn Bind>,
    pod: Arc<PodInfo>,
    node: Arc<str>,
) -> Bound {
    let started = Instant::now();
    let mut outcome = Ok(());
    for plugin in pre_binds {
        outcome = plugin.pre_bind(&pod, &node).await;
        if outcome.is_err() {
            break;
        }
    }
    if outcome.is_ok() {
        outcome = binder.bind(&pod, &node).await;
    }
    Bound {
        pod,
        node,
        outcome,
        seconds: started.elapsed().as_secs_f64(),
    }
}

pub(crate) fn pod_key(pod: &PodInfo) -> String {
    format!("{}/{}", pod.namespace(), pod.name())
}

fn has_condition(pod: &Pod, message: &str) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.message.as_deref() == Some(message)
    })
}

async fn write_conditions(client: Client, mut queue: mpsc::Receiver<(Arc<PodInfo>, String)>) {
    let mut writes = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = writes.next(), if !writes.is_empty() => {}
            next = queue.recv(), if writes.len() < CONDITION_CONCURRENCY => {
                let Some((pod, message)) = next else { return };
                writes.push(write_condition(client.clone(), pod, message));
            }
        }
    }
}

async fn write_condition(client: Client, pod: Arc<PodInfo>, message: String) {
    let patch = serde_json::json!({
        "metadata": {"uid": &*pod.uid},
        "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": Time(Timestamp::now()),
        }]}
    });
    let pods = Api::<Pod>::namespaced(client, pod.namespace());
    let patched = pods
        .patch_status(
            pod.name(),
            &PatchParams::default(),
            &Patch::Strategic(patch),
        )
        .await;
    match patched {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => tracing::warn!(pod = %pod_key(&pod), %error, "condition not written"),
    }
}
