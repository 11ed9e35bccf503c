//! Figures of priority and fairness.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct LevelLabels {
    pub priority_level: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct FlowLabels {
    pub priority_level: String,
    pub flow_schema: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RejectionLabels {
    pub priority_level: String,
    pub flow_schema: String,
    pub reason: &'static str,
}

/// Figures of all levels, named as Kubernetes names them.
#[derive(Clone, Default)]
pub(super) struct Metrics {
    pub dispatched: Family<FlowLabels, Counter>,
    pub rejected: Family<RejectionLabels, Counter>,
    pub waiting: Family<LevelLabels, Gauge>,
    pub executing: Family<LevelLabels, Gauge>,
    pub seats: Family<LevelLabels, Gauge>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics::default();
        let mut add = |name: &str, help: &str, gauge: &Family<LevelLabels, Gauge>| {
            registry.register(format!("apiserver_flowcontrol_{name}"), help, gauge.clone());
        };
        add(
            "current_inqueue_requests",
            "Requests that wait for a seat",
            &metrics.waiting,
        );
        add(
            "current_executing_requests",
            "Requests that have a seat",
            &metrics.executing,
        );
        add("nominal_limit_seats", "Seats of the level", &metrics.seats);
        registry.register(
            "apiserver_flowcontrol_dispatched_requests",
            "Requests that were given a seat, or need none",
            metrics.dispatched.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_rejected_requests",
            "Requests that were refused",
            metrics.rejected.clone(),
        );
        metrics
    }
}
