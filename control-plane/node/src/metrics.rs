//! The node agent's metrics, in the OpenMetrics text format.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Whether an operation succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Why a start failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The metrics; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    sandbox_starts: Family<Outcome, Histogram>,
    pulls: Family<Outcome, Histogram>,
    start_failures: Family<Reason, Counter>,
    relists: Histogram,
    pods: Gauge,
}

fn seconds_histogram() -> Histogram {
    // 10 ms to about 5 minutes.
    Histogram::new(exponential_buckets(0.01, 2.0, 15))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hull_node");
        let sandbox_starts: Family<Outcome, Histogram> =
            Family::new_with_constructor(seconds_histogram);
        let pulls: Family<Outcome, Histogram> = Family::new_with_constructor(seconds_histogram);
        let start_failures: Family<Reason, Counter> = Family::default();
        let relists = seconds_histogram();
        let pods = Gauge::default();
        registry.register_with_unit(
            "sandbox_start_duration",
            "Time of RunPodSandbox",
            Unit::Seconds,
            sandbox_starts.clone(),
        );
        registry.register_with_unit(
            "image_pull_duration",
            "Time of PullImage",
            Unit::Seconds,
            pulls.clone(),
        );
        registry.register(
            "container_start_failures",
            "Containers that could not be started, by waiting reason",
            start_failures.clone(),
        );
        registry.register_with_unit(
            "relist_duration",
            "Time of listing the runtime's sandboxes and containers",
            Unit::Seconds,
            relists.clone(),
        );
        registry.register("pods", "Pods with a worker on this node", pods.clone());
        Metrics {
            registry: Arc::new(Mutex::new(registry)),
            sandbox_starts,
            pulls,
            start_failures,
            relists,
            pods,
        }
    }
}

fn outcome(ok: bool) -> Outcome {
    Outcome {
        outcome: if ok { "ok" } else { "error" },
    }
}

impl Metrics {
    pub(crate) fn observe_sandbox(&self, took: Duration, ok: bool) {
        self.sandbox_starts
            .get_or_create(&outcome(ok))
            .observe(took.as_secs_f64());
    }

    pub(crate) fn observe_pull(&self, took: Duration, ok: bool) {
        self.pulls
            .get_or_create(&outcome(ok))
            .observe(took.as_secs_f64());
    }

    pub(crate) fn start_failed(&self, reason: &'static str) {
        self.start_failures.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn observe_relist(&self, took: Duration) {
        self.relists.observe(took.as_secs_f64());
    }

    pub(crate) fn set_pods(&self, count: usize) {
        self.pods.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The text that `/metrics` answers.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) =
            prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())
        {
            tracing::warn!(%error, "metrics not rendered");
        }
        text
    }
}
