//! `/metrics`.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LatencyLabels {
    verb: String,
    group: String,
    resource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResourceLabels {
    resource: String,
}

/// Upper bounds in seconds.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

type Latency = Family<LatencyLabels, Histogram, fn() -> Histogram>;

fn latency_histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// The server's counters.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RequestLabels, Counter>,
    latency: Latency,
    in_flight: Gauge,
    watchers: Gauge,
    watch_events: Counter,
    objects: Family<ResourceLabels, Gauge>,
}

/// Counts something for as long as it lives.
pub(crate) struct GaugeGuard(Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers the server's figures beside those that `registry` has.
    pub(crate) fn new(mut registry: Registry) -> Self {
        let metrics = Metrics {
            requests: Family::default(),
            latency: Family::new_with_constructor(latency_histogram as fn() -> Histogram),
            in_flight: Gauge::default(),
            watchers: Gauge::default(),
            watch_events: Counter::default(),
            objects: Family::default(),
            registry: Arc::default(),
        };
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and status code",
            metrics.requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to answer, watches and streams not counted",
            metrics.latency.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests being answered",
            metrics.in_flight.clone(),
        );
        registry.register(
            "apiserver_registered_watchers",
            "Open watches",
            metrics.watchers.clone(),
        );
        registry.register(
            "apiserver_watch_events_written",
            "Changes written for watches, once for all that want the same form",
            metrics.watch_events.clone(),
        );
        registry.register(
            "apiserver_storage_objects",
            "Objects by stored resource",
            metrics.objects.clone(),
        );
        *metrics.registry.lock() = registry;
        metrics
    }

    pub(crate) fn request_started(&self) -> GaugeGuard {
        self.in_flight.inc();
        GaugeGuard(self.in_flight.clone())
    }

    pub(crate) fn watcher(&self) -> GaugeGuard {
        self.watchers.inc();
        GaugeGuard(self.watchers.clone())
    }

    pub(crate) fn watch_event_written(&self) {
        self.watch_events.inc();
    }

    /// Counts an answered request; `elapsed` is absent for those that last.
    pub(crate) fn request_done(
        &self,
        verb: &str,
        (group, resource, subresource): (&str, &str, &str),
        code: u16,
        elapsed: Option<Duration>,
    ) {
        self.requests
            .get_or_create(&RequestLabels {
                verb: verb.to_string(),
                group: group.to_string(),
                resource: resource.to_string(),
                subresource: subresource.to_string(),
                code,
            })
            .inc();
        if let Some(elapsed) = elapsed {
            self.latency
                .get_or_create(&LatencyLabels {
                    verb: verb.to_string(),
                    group: group.to_string(),
                    resource: resource.to_string(),
                })
                .observe(elapsed.as_secs_f64());
        }
    }

    /// The text for Prometheus.
    pub(crate) fn render(&self, objects: &[(String, usize)]) -> Result<String, std::fmt::Error> {
        for (resource, count) in objects {
            self.objects
                .get_or_create(&ResourceLabels {
                    resource: resource.clone(),
                })
                .set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}
