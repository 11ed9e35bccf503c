//! What is counted, as Prometheus text.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::filesystem::ShareFs;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests that were taken from a queue.
    pub requests: Counter,
    /// Requests that could not be understood.
    pub malformed: Counter,
    /// Bytes of files that the guest read.
    pub read_bytes: Counter,
    /// Bytes of files that the guest wrote.
    pub written_bytes: Counter,
}

/// Everything that is counted.
pub fn render(fs: &ShareFs) -> String {
    let metrics = &fs.metrics;
    let counters = [
        (
            "hull_fsd_requests_total",
            "FUSE requests taken from a queue.",
            metrics.requests.get(),
        ),
        (
            "hull_fsd_malformed_requests_total",
            "FUSE requests that could not be understood.",
            metrics.malformed.get(),
        ),
        (
            "hull_fsd_read_bytes_total",
            "Bytes of files that the guest read.",
            metrics.read_bytes.get(),
        ),
        (
            "hull_fsd_written_bytes_total",
            "Bytes of files that the guest wrote.",
            metrics.written_bytes.get(),
        ),
    ];
    let gauges = [
        (
            "hull_fsd_shares",
            "Directories that the guest may see.",
            fs.shares.all().len(),
        ),
        (
            "hull_fsd_known_files",
            "Files that the guest knows.",
            fs.known_files(),
        ),
        (
            "hull_fsd_open_files",
            "Files that the guest has open.",
            fs.open_files(),
        ),
    ];
    let mut text = String::new();
    for (name, help, value) in counters {
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}"
        );
    }
    for (name, help, value) in gauges {
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
        );
    }
    text
}
