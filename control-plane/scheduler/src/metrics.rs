//! Figures, under Kubernetes' names.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
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
    pub decision_seconds: Arc<Histogram>,
    /// Seconds of one binding.
    pub binding_seconds: Arc<Histogram>,
}

impl Default for SchedulerMetrics {
    fn default() -> Self {
        SchedulerMetrics {
            attempts: Family::default(),
            pending: Family::default(),
            decision_seconds: Arc::new(Histogram::new(exponential_buckets(0.000_01, 2.0, 16))),
            binding_seconds: Arc::new(Histogram::new(exponential_buckets(0.000_5, 2.0, 16))),
        }
    }
}

impl SchedulerMetrics {
    /// Metrics that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("scheduler");
        registry.register(
            "schedule_attempts",
            "Attempts to schedule pods, by result",
            metrics.attempts.clone(),
        );
        registry.register(
            "pending_pods",
            "Pods waiting, by queue",
            metrics.pending.clone(),
        );
        registry.register(
            "scheduling_algorithm_duration_seconds",
            "Time of one decision",
            metrics.decision_seconds.as_ref().clone(),
        );
        registry.register(
            "binding_duration_seconds",
            "Time of one binding",
            metrics.binding_seconds.as_ref().clone(),
        );
        metrics
    }
}
