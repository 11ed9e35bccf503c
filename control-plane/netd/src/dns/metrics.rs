//! Figures of cluster DNS.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Who answered, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueryLabels {
    /// `zone`, `cache`, `upstream` or `none`.
    pub source: &'static str,
    /// The response code's number.
    pub rcode: u8,
}

/// The metrics; clones share them.
#[derive(Debug, Clone)]
pub struct DnsMetrics {
    /// Queries answered.
    pub queries: Family<QueryLabels, Counter>,
    /// Seconds that upstream servers took.
    pub upstream_seconds: Histogram,
}

impl Default for DnsMetrics {
    fn default() -> Self {
        DnsMetrics {
            queries: Family::default(),
            upstream_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
        }
    }
}

impl DnsMetrics {
    /// Shows them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "dns_queries",
            "Queries answered, by who knew and the response code",
            self.queries.clone(),
        );
        registry.register_with_unit(
            "dns_upstream_duration",
            "Time that upstream servers took",
            Unit::Seconds,
            self.upstream_seconds.clone(),
        );
    }

    /// Counts one answer.
    pub fn count(&self, source: &'static str, rcode: u8) {
        self.queries
            .get_or_create(&QueryLabels { source, rcode })
            .inc();
    }
}
