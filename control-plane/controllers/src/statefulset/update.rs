//! One step towards what is wanted.

use std::sync::Arc;

use hull_client::events::{EventType, reference};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::util::intstr::IntOrString};
use serde_json::json;

use super::{
    StatefulSetController, View, identity,
    slots::{Slots, is_available, is_healthy, is_running_and_ready, is_terminating},
};
use crate::{
    int_or_percent::resolve,
    pods,
    runtime::{Key, ReconcileError},
};

/// Whether the work on the next pod may begin.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    GoOn,
    Wait,
}

impl StatefulSetController {
    pub(super) async fn work(&self, view: &View<'_>, slots: &Slots) -> Result<(), ReconcileError> {
        for (ordinal, slot) in &slots.wanted {
            let step = match slot {
                None => self.fill(view, *ordinal).await?,
                Some(pod) => self.keep(view, *ordinal, pod).await?,
            };
            if step == Step::Wait {
                return Ok(());
            }
        }
        let first_unhealthy = slots.first_unhealthy();
        for (ordinal, pod) in &slots.condemned {
            let step = self.condemn(view, *ordinal, pod, first_unhealthy).await?;
            if step == Step::Wait {
                return Ok(());
            }
        }
        if view.is_rolling() {
            self.roll(view, slots).await?;
        }
        Ok(())
    }

    /// A number without a pod.
    async fn fill(&self, view: &View<'_>, ordinal: i32) -> Result<Step, ReconcileError> {
        if self.claims_are_leaving(view, ordinal) {
            return Ok(Step::Wait);
        }
        self.ensure_claims(view, ordinal).await?;
        self.create_pod(view.set, &identity::new_pod(view, ordinal))
            .await?;
        Ok(if view.is_ordered() {
            Step::Wait
        } else {
            Step::GoOn
        })
    }

    /// A number with a pod.
    async fn keep(
        &self,
        view: &View<'_>,
        ordinal: i32,
        pod: &Arc<Pod>,
    ) -> Result<Step, ReconcileError> {
        if pods::is_terminal(pod) {
            if !is_terminating(pod) {
                self.announce_again(view, pod);
                self.delete_pod(view.set, pod).await?;
            }
            // The new one comes when this one is gone.
            return Ok(if view.is_ordered() {
                Step::Wait
            } else {
                Step::GoOn
            });
        }
        if pods::phase(pod) == "Pending" && !is_terminating(pod) {
            self.ensure_claims(view, ordinal).await?;
        }
        if view.is_ordered()
            && (is_terminating(pod) || !is_running_and_ready(pod) || !is_available(view, pod))
        {
            return Ok(Step::Wait);
        }
        if is_terminating(pod) {
            return Ok(Step::GoOn);
        }
        let labels = identity::missing_labels(view, ordinal, pod);
        if !labels.is_empty() {
            let patch = json!({"metadata": {"uid": pod.metadata.uid, "labels": labels}});
            self.writer.patch_object(&**pod, None, patch).await?;
        }
        self.mend_owners(view, ordinal, pod, false).await?;
        Ok(Step::GoOn)
    }

    fn announce_again(&self, view: &View<'_>, pod: &Pod) {
        let (reason, word) = if pods::phase(pod) == "Failed" {
            ("RecreatingFailedPod", "failed")
        } else {
            ("RecreatingTerminatedPod", "terminated")
        };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let message = format!(
            "StatefulSet {} is recreating {word} Pod {name}",
            Key::of(view.set)
        );
        self.recorder
            .event(reference(view.set), EventType::Warning, reason, message);
    }

    /// A pod beyond the last wanted number.
    async fn condemn(
        &self,
        view: &View<'_>,
        ordinal: i32,
        pod: &Arc<Pod>,
        first_unhealthy: Option<&str>,
    ) -> Result<Step, ReconcileError> {
        let ordered = view.is_ordered();
        if is_terminating(pod) {
            return Ok(if ordered { Step::Wait } else { Step::GoOn });
        }
        // A pod that is not well may come back: nothing below it goes before, but it may go itself.
        let itself = pod.metadata.uid.as_deref() == first_unhealthy;
        if ordered && first_unhealthy.is_some() && !itself && !is_available(view, pod) {
            return Ok(Step::Wait);
        }
        // Its claims must know before the pod is gone.
        self.mend_owners(view, ordinal, pod, true).await?;
        self.delete_pod(view.set, pod).await?;
        Ok(if ordered { Step::Wait } else { Step::GoOn })
    }

    /// Deletes pods of old revisions, from the last, as many as may be away.
    async fn roll(&self, view: &View<'_>, slots: &Slots) -> Result<(), ReconcileError> {
        let first = view.start().saturating_add(view.partition().unwrap_or(0));
        let most = max_unavailable(view);
        let pods: Vec<(i32, &Arc<Pod>)> = slots
            .wanted
            .iter()
            .rev()
            .filter_map(|(ordinal, slot)| Some((*ordinal, slot.as_ref()?)))
            .collect();
        let missing = slots.wanted.len() - pods.len();
        let is_old = |pod: &Pod| identity::revision(pod) != view.update_name;
        if most == 1 {
            for (_, pod) in pods.iter().filter(|(ordinal, _)| *ordinal >= first) {
                if is_old(pod) && !is_terminating(pod) {
                    return self.delete_pod(view.set, pod).await;
                }
                if !is_healthy(pod) || !is_available(view, pod) {
                    return Ok(());
                }
            }
            return Ok(());
        }
        let away = pods
            .iter()
            .filter(|(_, pod)| !is_available(view, pod))
            .count()
            + missing;
        let mut left = most.saturating_sub(away);
        for (_, pod) in pods.iter().filter(|(ordinal, _)| *ordinal >= first) {
            if !is_old(pod) || is_terminating(pod) {
                continue;
            }
            // One that is away already costs nothing more.
            if is_available(view, pod) {
                if left == 0 {
                    break;
                }
                left -= 1;
            }
            self.delete_pod(view.set, pod).await?;
        }
        Ok(())
    }
}

fn max_unavailable(view: &View<'_>) -> usize {
    let strategy = view.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let value: Option<&IntOrString> = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let most = value.map_or(1, |value| resolve(value, view.replicas(), false));
    usize::try_from(most.max(1)).unwrap_or(1)
}
