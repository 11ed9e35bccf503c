//! Registering figures, the same way in every part of the control plane.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};

/// Smallest bucket of [`seconds`].
const FIRST_BUCKET_SECONDS: f64 = 0.000_01;
/// Each further bucket is this much wider.
const BUCKET_FACTOR: f64 = 2.5;
/// Buckets: from ten microseconds to about ten seconds.
const BUCKETS: u16 = 16;

/// A histogram of durations.
pub fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(
        FIRST_BUCKET_SECONDS,
        BUCKET_FACTOR,
        BUCKETS,
    ))
}

/// A prefix within a registry.
pub struct Figures<'a> {
    registry: &'a mut Registry,
}

impl<'a> Figures<'a> {
    /// Those whose names begin with `prefix_`.
    pub fn of(registry: &'a mut Registry, prefix: &str) -> Self {
        Figures {
            registry: registry.sub_registry_with_prefix(prefix),
        }
    }

    /// Registers any metric and gives it back.
    pub fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register(name, help, metric.clone());
        metric
    }

    /// Counters by label; the name is given without `_total`.
    pub fn counters<L: Labels>(&mut self, name: &str, help: &str) -> Family<L, Counter> {
        self.add(name, help, Family::default())
    }

    /// Gauges by label.
    pub fn gauges<L: Labels>(&mut self, name: &str, help: &str) -> Family<L, Gauge> {
        self.add(name, help, Family::default())
    }

    /// Durations by label.
    pub fn durations<L: Labels>(&mut self, name: &str, help: &str) -> Family<L, Histogram> {
        self.add(name, help, Family::new_with_constructor(seconds))
    }
}

/// What a family is told apart by.
pub trait Labels:
    EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static
{
}

impl<L> Labels for L where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static
{
}
