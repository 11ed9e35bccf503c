//! Figures of all controllers.

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

/// Which controller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ControllerLabels {
    /// Its name.
    pub controller: &'static str,
}

/// Which controller, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReconcileLabels {
    /// Its name.
    pub controller: &'static str,
    /// `done`, `again` or `error`.
    pub result: &'static str,
}

/// The controllers' metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct ControllersMetrics {
    /// Reconciliations.
    pub reconciles: Family<ReconcileLabels, Counter>,
    /// Keys ready in the work queue.
    pub depth: Family<ControllerLabels, Gauge>,
    /// Seconds of a reconciliation.
    pub seconds: Family<ControllerLabels, Histogram>,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 4.0, 10))
}

impl Default for ControllersMetrics {
    fn default() -> Self {
        ControllersMetrics {
            reconciles: Family::default(),
            depth: Family::default(),
            seconds: Family::new_with_constructor(seconds),
        }
    }
}

impl ControllersMetrics {
    /// Metrics that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("controller");
        registry.register(
            "reconcile",
            "Reconciliations, by result",
            metrics.reconciles.clone(),
        );
        registry.register("workqueue_depth", "Keys ready", metrics.depth.clone());
        registry.register(
            "reconcile_duration_seconds",
            "Time of a reconciliation",
            metrics.seconds.clone(),
        );
        metrics
    }
}
