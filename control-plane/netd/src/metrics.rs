//! netd's metrics, in the OpenMetrics text format.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// How a write of the kernel's tables went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SyncLabels {
    /// `inet`, `bridge` or `netdev`.
    pub table: &'static str,
    /// `change` or `replacement`.
    pub mode: &'static str,
    /// `ok` or `error`.
    pub outcome: &'static str,
}

/// The way to other nodes' pod networks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WayLabels {
    /// `link`, `tunnel` or `none`.
    pub way: &'static str,
}

/// The metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// Seconds of one nftables transaction.
    pub sync_seconds: Family<SyncLabels, Histogram>,
    /// Services known.
    pub services: Gauge,
    /// Elements of the service table.
    pub elements: Gauge,
    /// UDP flows forgotten.
    pub flows_forgotten: Counter,
    /// Pod networks of other nodes.
    pub node_networks: Family<WayLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hull_netd");
        let sync_seconds: Family<SyncLabels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.002, 2.0, 14)));
        let (services, elements) = (Gauge::default(), Gauge::default());
        let flows_forgotten = Counter::default();
        registry.register_with_unit(
            "sync_duration",
            "Time of one nftables transaction",
            Unit::Seconds,
            sync_seconds.clone(),
        );
        registry.register("services", "Services known", services.clone());
        registry.register(
            "service_elements",
            "Elements of the service table's sets and maps",
            elements.clone(),
        );
        registry.register(
            "udp_flows_forgotten",
            "UDP flows taken out of connection tracking",
            flows_forgotten.clone(),
        );
        let node_networks = Family::<WayLabels, Gauge>::default();
        registry.register(
            "node_networks",
            "Pod networks of other nodes by the way to them",
            node_networks.clone(),
        );
        Metrics {
            registry: Arc::new(Mutex::new(registry)),
            sync_seconds,
            services,
            elements,
            flows_forgotten,
            node_networks,
        }
    }
}

impl Metrics {
    /// The text that is served.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry.lock());
        text
    }

    /// Lets a part add its own.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }
}
