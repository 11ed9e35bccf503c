//! HorizontalPodAutoscaler (`autoscaling/v2`): as many replicas as the load asks for.
//!
//! ```text
//! every 15 s: scale subresource ─► pods by its selector ─► metrics.k8s.io ─► replicas: proposal
//!                                                                               │ per metric
//!     the greatest ─► behavior: stabilisation windows ─► policies, min, max ─► scale subresource
//! ```
//!
//! Anything with a scale subresource can be the target, custom resources too.

mod behavior;
mod conditions;
mod measure;
mod replicas;
mod target;
#[cfg(test)]
mod tests;
mod usage;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hull_api::selector::LabelSelector;
use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::{
    api::{
        autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use parking_lot::Mutex;

use crate::runtime::{Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer};
use behavior::{Behavior, Memory};
use conditions::{ABLE_TO_SCALE, SCALING_ACTIVE, SCALING_LIMITED, set};
use measure::Subject;
use target::{Kinds, Scale, chooses};

/// Time between two looks at the load.
const SYNC_PERIOD: Duration = Duration::from_secs(15);

/// See the module.
pub struct HorizontalPodAutoscalerController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    autoscalers: Arc<Informer<HorizontalPodAutoscaler>>,
    pods: Arc<Informer<Pod>>,
    kinds: Kinds,
    memories: Mutex<HashMap<Key, Memory>>,
    queue: Arc<WorkQueue>,
}

/// A count as a ratio's part.
#[allow(
    clippy::cast_precision_loss,
    reason = "ratios are compared with a tolerance of percents"
)]
fn float(value: i64) -> f64 {
    value as f64
}

/// A number of replicas from a ratio; out of range ends at the border.
#[allow(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn whole(value: f64) -> i32 {
    value as i32
}

/// The size and why, if it was worked out.
struct Decision {
    replicas: i32,
    reason: String,
}

/// Why nothing is decided this time; conditions and events have said it.
struct Undecided;

type Status = HorizontalPodAutoscalerStatus;

impl HorizontalPodAutoscalerController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        autoscalers: Arc<Informer<HorizontalPodAutoscaler>>,
        pods: Arc<Informer<Pod>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        autoscalers.on_change({
            let queue = queue.clone();
            // Its own writes of the status come back; the period goes on by itself.
            move |delta| match delta {
                Delta::Updated { old, new } if old.spec == new.spec => {}
                _ => queue.add(Key::of(&**delta.newest())),
            }
        });
        Arc::new(HorizontalPodAutoscalerController {
            writer,
            recorder,
            autoscalers,
            pods,
            kinds: Kinds::default(),
            memories: Mutex::default(),
            queue,
        })
    }

    fn warn(&self, autoscaler: &HorizontalPodAutoscaler, reason: &'static str, message: &str) {
        let object = reference(autoscaler);
        self.recorder
            .event(object, EventType::Warning, reason, message);
    }

    /// The target's scale.
    async fn scale(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        status: &mut Status,
    ) -> Result<Scale, Undecided> {
        let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        let reference = autoscaler.spec.scale_target_ref.clone();
        let found = match self.kinds.find(&*self.writer, &reference).await {
            Ok(resource) => Scale::read(&*self.writer, resource, namespace, &reference.name)
                .await
                .map_err(|error| error.message()),
            Err(problem) => Err(problem),
        };
        found.map_err(|problem| {
            self.warn(autoscaler, "FailedGetScale", &problem);
            let message = format!(
                "the HPA controller was unable to get the target's current scale: {problem}"
            );
            set(status, ABLE_TO_SCALE, false, "FailedGetScale", message);
            Undecided
        })
    }

    /// The pods that are scaled.
    fn pods_of(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        scale: &Scale,
        status: &mut Status,
    ) -> Result<Vec<Arc<Pod>>, Undecided> {
        if scale.selector.is_empty() {
            self.warn(autoscaler, "SelectorRequired", "selector is required");
            let message = "the HPA target's scale is missing a selector";
            set(status, SCALING_ACTIVE, false, "InvalidSelector", message);
            return Err(Undecided);
        }
        let selector = LabelSelector::parse(&scale.selector).map_err(|error| {
            let problem = format!(
                "couldn't convert selector into a corresponding internal selector object: {}",
                error.0
            );
            self.warn(autoscaler, "InvalidSelector", &problem);
            set(status, SCALING_ACTIVE, false, "InvalidSelector", problem);
            Undecided
        })?;
        let mut pods = self.pods.in_namespace(&scale.namespace);
        pods.retain(|pod| chooses(&selector, pod));
        Ok(pods)
    }

    /// The greatest of what the metrics ask for, and the name of that metric.
    async fn measured(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        subject: &Subject<'_>,
        status: &mut Status,
    ) -> Result<(i32, String), Undecided> {
        let metrics = autoscaler.spec.metrics.clone().unwrap_or_default();
        let mut greatest: Option<(i32, String)> = None;
        let mut failures = Vec::new();
        let mut shown = Vec::new();
        for metric in &metrics {
            match subject.ask(metric).await {
                Ok(asked) => {
                    if greatest
                        .as_ref()
                        .is_none_or(|(replicas, _)| asked.replicas > *replicas)
                    {
                        greatest = Some((asked.replicas, asked.name));
                    }
                    shown.push(asked.status);
                }
                Err(error) => {
                    self.warn(autoscaler, error.reason, &error.message);
                    failures.push(error);
                }
            }
        }
        status.current_metrics = (!shown.is_empty()).then_some(shown);
        // What could not be measured might have asked for more.
        let safe =
            greatest.filter(|(replicas, _)| failures.is_empty() || *replicas >= subject.current);
        if let Some((replicas, name)) = safe {
            let message =
                format!("the HPA was able to successfully calculate a replica count from {name}");
            set(status, SCALING_ACTIVE, true, "ValidMetricFound", message);
            return Ok((replicas, name));
        }
        let (reason, first) = match failures.first() {
            Some(error) => (error.reason, error.message.clone()),
            None => ("InvalidMetricSourceType", "no metrics given".to_owned()),
        };
        let message = format!("the HPA was unable to compute the replica count: {first}");
        set(status, SCALING_ACTIVE, false, reason, message);
        let (invalid, all) = (failures.len(), metrics.len());
        let message =
            format!("invalid metrics ({invalid} invalid out of {all}), first error is: {first}");
        self.warn(autoscaler, "FailedComputeMetricsReplicas", &message);
        Err(Undecided)
    }

    /// The size that the target should have.
    async fn decide(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        scale: &Scale,
        status: &mut Status,
    ) -> Result<Decision, Undecided> {
        let spec = autoscaler.spec.clone();
        let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        let current = scale.wanted;
        let bound = |replicas, reason: &str| {
            Ok(Decision {
                replicas,
                reason: reason.into(),
            })
        };
        if current == 0 && least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            set(status, SCALING_ACTIVE, false, "ScalingDisabled", message);
            return bound(0, "");
        }
        if current > most {
            return bound(most, "Current number of replicas above Spec.MaxReplicas");
        }
        if current < least {
            return bound(least, "Current number of replicas below Spec.MinReplicas");
        }
        let behavior = Behavior::of(spec.behavior.as_ref());
        let pods = self.pods_of(autoscaler, scale, status)?;
        let subject = Subject {
            writer: &*self.writer,
            namespace: &scale.namespace,
            pods: &pods,
            current,
            behavior: &behavior,
        };
        let (asked, metric) = self.measured(autoscaler, &subject, status).await?;
        let now = Instant::now();
        let mut memories = self.memories.lock();
        let memory = memories.entry(key.clone()).or_default();
        memory.begin(current, now);
        let stable = memory.stabilize(&behavior, current, asked, now);
        let (reason, message) = match stable.replicas == asked {
            true => ("ReadyForNewScale", "recommended size matches current size"),
            false => (stable.reason, stable.message),
        };
        set(status, ABLE_TO_SCALE, true, reason, message);
        let allowed = memory.bound(&behavior, current, stable.replicas, (least, most), now);
        let is_limited = allowed.replicas != stable.replicas;
        set(
            status,
            SCALING_LIMITED,
            is_limited,
            allowed.reason,
            allowed.message,
        );
        Ok(Decision {
            replicas: allowed.replicas,
            reason: match allowed.replicas > current {
                true => format!("{metric} above target"),
                false => "All metrics below target".into(),
            },
        })
    }

    /// Gives the target its new size.
    async fn resize(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        scale: &Scale,
        decision: &Decision,
        status: &mut Status,
    ) -> Result<(), Undecided> {
        let (replicas, reason) = (decision.replicas, &decision.reason);
        if let Err(error) = scale.resize(&*self.writer, replicas).await {
            let problem = error.message();
            let message = format!("New size: {replicas}; reason: {reason}; error: {problem}");
            self.warn(autoscaler, "FailedRescale", &message);
            let message =
                format!("the HPA controller was unable to update the target scale: {problem}");
            set(status, ABLE_TO_SCALE, false, "FailedUpdateScale", message);
            return Err(Undecided);
        }
        let message =
            format!("the HPA controller was able to update the target scale to {replicas}");
        set(status, ABLE_TO_SCALE, true, "SucceededRescale", message);
        let message = format!("New size: {replicas}; reason: {reason}");
        let object = reference(autoscaler);
        self.recorder
            .event(object, EventType::Normal, "SuccessfulRescale", message);
        let mut memories = self.memories.lock();
        let memory = memories.entry(key.clone()).or_default();
        memory.changed(scale.wanted, replicas, Instant::now());
        status.last_scale_time = Some(Time(Timestamp::now()));
        Ok(())
    }

    /// One round; the status says what came of it.
    async fn round(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        status: &mut Status,
    ) -> Result<(), Undecided> {
        let scale = self.scale(autoscaler, status).await?;
        let message = "the HPA controller was able to get the target's current scale";
        set(status, ABLE_TO_SCALE, true, "SucceededGetScale", message);
        status.current_replicas = Some(scale.current);
        let decision = self.decide(key, autoscaler, &scale, status).await?;
        if decision.replicas != scale.wanted {
            self.resize(key, autoscaler, &scale, &decision, status)
                .await?;
        }
        status.desired_replicas = decision.replicas;
        Ok(())
    }
}

#[async_trait::async_trait]
impl Controller for HorizontalPodAutoscalerController {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(autoscaler) = self.autoscalers.get(key) else {
            self.memories.lock().remove(key);
            return Ok(Action::Done);
        };
        if autoscaler.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let old = autoscaler.status.clone().unwrap_or_default();
        let mut status = old.clone();
        status.observed_generation = autoscaler.metadata.generation;
        // A round that fails comes again with the period, not sooner: the load will have changed.
        let _ = self.round(key, &autoscaler, &mut status).await;
        if status != old {
            let changed = HorizontalPodAutoscaler {
                status: Some(status),
                ..(*autoscaler).clone()
            };
            match self.writer.replace_status(&changed).await {
                // The next round writes it.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        Ok(Action::After(SYNC_PERIOD))
    }
}
