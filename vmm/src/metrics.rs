//! Counters and their Prometheus text format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One line of output with its family.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    labels: String,
    value: f64,
}

impl Sample {
    /// A counter.
    pub fn counter(
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: &Counter,
    ) -> Self {
        Self::new(name, help, "counter", labels, value.get() as f64)
    }

    /// A gauge.
    pub fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: f64,
    ) -> Self {
        Self::new(name, help, "gauge", labels, value)
    }

    fn new(
        name: &'static str,
        help: &'static str,
        kind: &'static str,
        labels: &[(&str, &str)],
        value: f64,
    ) -> Self {
        let quoted = |value: &str| {
            value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n")
        };
        let parts: Vec<_> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", quoted(value)))
            .collect();
        let labels = if parts.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", parts.join(","))
        };
        Self {
            name,
            help,
            kind,
            labels,
            value,
        }
    }
}

/// Something that is counted.
pub trait Samples: Send + Sync {
    /// Appends the current values; `device` is the name of the device.
    fn samples(&self, device: &str, out: &mut Vec<Sample>);
}

/// Prometheus text exposition format 0.0.4.
pub fn render(mut samples: Vec<Sample>) -> String {
    samples.sort_by(|a, b| a.name.cmp(b.name));
    let mut text = String::new();
    let mut family = "";
    for sample in &samples {
        if sample.name != family {
            family = sample.name;
            // Writing into a String does not fail.
            let _ = writeln!(
                text,
                "# HELP {family} {}\n# TYPE {family} {}",
                sample.help, sample.kind
            );
        }
        let _ = writeln!(text, "{}{} {}", sample.name, sample.labels, sample.value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_grouped_by_family_and_labels_are_quoted() {
        let counter = Counter::default();
        counter.add(3);
        let text = render(vec![
            Sample::counter("b_total", "B.", &[("device", "x\"y")], &counter),
            Sample::gauge("a", "A.", &[], 1.5),
            Sample::counter("b_total", "B.", &[("device", "z")], &counter),
        ]);
        assert_eq!(
            text,
            "# HELP a A.\n# TYPE a gauge\na 1.5\n# HELP b_total B.\n# TYPE b_total counter\n\
             b_total{device=\"x\\\"y\"} 3\nb_total{device=\"z\"} 3\n"
        );
    }
}
