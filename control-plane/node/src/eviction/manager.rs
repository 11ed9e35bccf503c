//! The loop: look, tell, make room, evict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::ranking::{self, usages};
use super::signals;
use super::thresholds::{EvictionConfig, Met, Observer};
use super::{Condition, Verdict};
use crate::context::NodeContext;
use crate::events::EventType::Warning;
use crate::image_gc;
use crate::manager::PodIndex;

/// What a pod evicted by a hard threshold gets to end by itself.
const HARD_GRACE: Duration = Duration::from_secs(1);

/// When a condition was last seen with its cause.
#[derive(Default)]
struct Conditions {
    seen: BTreeMap<Condition, Instant>,
}

impl Conditions {
    /// The conditions that hold now: pressing ones, and those that were within the transition
    /// period.
    fn update(&mut self, met: &Met, config: &EvictionConfig, now: Instant) -> BTreeSet<Condition> {
        for signal in &met.pressing {
            self.seen.insert(Condition::of(*signal), now);
        }
        self.seen
            .retain(|_, seen| now.duration_since(*seen) < config.transition);
        self.seen.keys().copied().collect()
    }
}

/// Looks at an interval until cancelled.
pub(crate) async fn run(node: Arc<NodeContext>, index: PodIndex, shutdown: CancellationToken) {
    let mut observer = Observer::default();
    let mut conditions = Conditions::default();
    let config = &node.config.eviction;
    loop {
        let levels = signals::read(&node).await;
        let now = Instant::now();
        let met = observer.look(config, &levels, now);
        let held = conditions.update(&met, config, now);
        node.pressure.set_conditions(held);
        act(&node, &index, &met).await;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(node.config.timings.eviction_interval) => {}
        }
    }
}

/// Makes room for the most pressing threshold: by images if that is enough, else by one pod.
async fn act(node: &NodeContext, index: &PodIndex, met: &Met) {
    let Some((threshold, level)) = met.act else {
        return;
    };
    let signal = threshold.signal;
    tracing::warn!(
        signal = signal.name(),
        available = level.available,
        "node is short of a resource"
    );
    let message = format!("Attempting to reclaim {}", signal.resource());
    node.recorder.record(
        image_gc::about(node),
        Warning,
        "EvictionThresholdMet",
        message,
    );
    if signal.is_disk() {
        let freed = image_gc::collect(node, true).await;
        if freed.is_ok_and(|found| found.freed > 0) {
            // The next look shows whether it was enough.
            return;
        }
    }
    let stats = node.cri.list_pod_stats().await.unwrap_or_default();
    let usages = usages(&stats);
    let pods: Vec<Arc<Pod>> = index.read().values().cloned().collect();
    for pod in ranking::rank(pods, signal, &usages) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let own = spec.and_then(|spec| spec.termination_grace_period_seconds);
        let own = Duration::from_secs(own.and_then(|s| u64::try_from(s).ok()).unwrap_or(30));
        let grace = match threshold.grace {
            Some(_) => own.min(node.config.eviction.max_pod_grace),
            None => HARD_GRACE,
        };
        let message = ranking::message(&pod, (threshold, level), &usages);
        if node.pressure.evict(&uid, Verdict { message, grace }) {
            // One at a time: its end may be enough.
            return;
        }
    }
    tracing::warn!(signal = signal.name(), "no pod is left to evict");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::signals::Signal;

    #[test]
    fn condition_stays_for_the_transition_period() {
        let config = EvictionConfig::default();
        let begun = Instant::now();
        let mut conditions = Conditions::default();
        let pressing = Met {
            pressing: vec![Signal::ImageFsInodes],
            act: None,
        };
        let calm = Met::default();
        let mut held = |met: &Met, seconds| {
            let now = begun + Duration::from_secs(seconds);
            conditions
                .update(met, &config, now)
                .contains(&Condition::Disk)
        };
        assert!(held(&pressing, 0));
        assert!(held(&calm, 299));
        assert!(!held(&calm, 300));
    }
}
