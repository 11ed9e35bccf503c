//! Figures, under Kubernetes' names.

use hull_client::metrics::{Figures, seconds};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    /// `scheduled`, `unschedulable` or `error`.
    pub result: &'static str,
}

/// Which part of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabels {
    /// `active`, `backoff`, `unschedulable` or `gated`.
    pub queue: &'static str,
}

/// The scheduler's metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct SchedulerMetrics {
    /// Attempts by result.
    pub attempts: Family<AttemptLabels, Counter>,
    /// Pods waiting.
    pub pending: Family<QueueLabels, Gauge>,
    /// Seconds of one decision.
    pub decision_seconds: Histogram,
    /// Seconds of one binding.
    pub binding_seconds: Histogram,
    /// Pods deleted to make room.
    pub preemption_victims: Counter,
}

impl Default for SchedulerMetrics {
    fn default() -> Self {
        Self::register(&mut Registry::default())
    }
}

impl SchedulerMetrics {
    /// Metrics that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let mut figures = Figures::of(registry, "scheduler");
        SchedulerMetrics {
            attempts: figures.counters("schedule_attempts", "Attempts to schedule pods, by result"),
            pending: figures.gauges("pending_pods", "Pods waiting, by queue"),
            preemption_victims: figures.add(
                "preemption_victims",
                "Pods that were deleted to make room",
                Counter::default(),
            ),
            decision_seconds: figures.add(
                "scheduling_algorithm_duration_seconds",
                "Time of one decision",
                seconds(),
            ),
            binding_seconds: figures.add(
                "binding_duration_seconds",
                "Time of one binding",
                seconds(),
            ),
        }
    }
}
