//! Prometheus metrics and the HTTP endpoint that serves them.

use crate::error::StartPhase;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::time::Duration;

/// Upper bounds of the buckets of phase durations, seconds.
const PHASE_BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

type Labels = Vec<(&'static str, String)>;

fn phase_histogram() -> Histogram {
    Histogram::new(PHASE_BUCKETS)
}

/// The shim's metrics.
pub struct Metrics {
    registry: Registry,
    phases: Family<Labels, Histogram, fn() -> Histogram>,
    sandbox_failures: Family<Labels, Counter>,
    vmm_exits: Family<Labels, Counter>,
    /// Sandboxes whose VM runs.
    pub sandboxes_ready: Gauge,
    /// Bytes of container output written to log files.
    pub log_bytes: Counter,
    /// CNI CHECKs that found a pod's network not as it was made.
    pub cni_check_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let phases = Family::<Labels, Histogram, fn() -> Histogram>::new_with_constructor(
            phase_histogram as fn() -> Histogram,
        );
        let sandbox_failures = Family::<Labels, Counter>::default();
        let vmm_exits = Family::<Labels, Counter>::default();
        let sandboxes_ready = Gauge::default();
        let log_bytes = Counter::default();
        let cni_check_failures = Counter::default();
        registry.register_with_unit(
            "hull_shim_sandbox_phase",
            "Duration of the phases of RunPodSandbox",
            Unit::Seconds,
            phases.clone(),
        );
        registry.register(
            "hull_shim_sandbox_start_failures",
            "RunPodSandbox calls that failed, by phase",
            sandbox_failures.clone(),
        );
        registry.register(
            "hull_shim_vmm_exits",
            "VMM processes that ended, by reason",
            vmm_exits.clone(),
        );
        registry.register(
            "hull_shim_sandboxes_ready",
            "Sandboxes whose virtual machine runs",
            sandboxes_ready.clone(),
        );
        registry.register(
            "hull_shim_log_bytes",
            "Bytes of container output written to log files",
            log_bytes.clone(),
        );
        registry.register(
            "hull_shim_cni_check_failures",
            "CNI CHECKs that found a network not as it was made",
            cni_check_failures.clone(),
        );
        Self {
            registry,
            phases,
            sandbox_failures,
            vmm_exits,
            sandboxes_ready,
            log_bytes,
            cni_check_failures,
        }
    }
}

impl Metrics {
    /// A phase that went well.
    pub fn phase(&self, phase: StartPhase, took: Duration) {
        self.phases
            .get_or_create(&vec![("phase", phase.name().to_string())])
            .observe(took.as_secs_f64());
    }

    /// A sandbox that did not come up.
    pub fn start_failure(&self, phase: &str) {
        self.sandbox_failures
            .get_or_create(&vec![("phase", phase.to_string())])
            .inc();
    }

    /// A VMM that ended.
    pub fn vmm_exit(&self, reason: &str) {
        self.vmm_exits
            .get_or_create(&vec![("reason", reason.to_string())])
            .inc();
    }

    /// The text exposition format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// `GET /metrics` and `GET /healthz`.
pub fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(|State(metrics): State<Arc<Metrics>>| async move { metrics.text() }),
        )
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_exposed_under_their_names() {
        let metrics = Metrics::default();
        metrics.phase(StartPhase::Kernel, Duration::from_millis(30));
        let text = metrics.text();
        assert!(
            text.contains(r#"hull_shim_sandbox_phase_seconds_count{phase="kernel"} 1"#),
            "{text}"
        );
    }
}
