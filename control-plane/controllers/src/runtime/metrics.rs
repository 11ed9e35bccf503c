//! Figures of all controllers.

use hull_client::metrics::Figures;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
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
    /// Reconciliations that failed and are tried again.
    pub retries: Family<ControllerLabels, Counter>,
    /// Keys ready in the work queue.
    pub depth: Family<ControllerLabels, Gauge>,
    /// Seconds of a reconciliation.
    pub seconds: Family<ControllerLabels, Histogram>,
}

impl Default for ControllersMetrics {
    fn default() -> Self {
        Self::register(&mut Registry::default())
    }
}

impl ControllersMetrics {
    /// Metrics that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let mut figures = Figures::of(registry, "controller");
        ControllersMetrics {
            reconciles: figures.counters("reconcile", "Reconciliations, by result"),
            retries: figures.counters("workqueue_retries", "Reconciliations tried again"),
            depth: figures.gauges("workqueue_depth", "Keys ready"),
            seconds: figures.durations("reconcile_duration_seconds", "Time of a reconciliation"),
        }
    }
}
