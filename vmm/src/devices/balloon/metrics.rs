//! Counters of virtio-balloon.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::memory::PAGE_BYTES;
use crate::metrics::{Counter, Sample, Samples};

/// See the module.
#[derive(Debug, Default)]
pub struct BalloonMetrics {
    /// Pages in the balloon, as the guest says.
    pub actual_pages: AtomicU32,
    /// Bytes that went back to the host by inflation.
    pub inflated_bytes: Counter,
    /// Bytes that went back to the host as reported free pages.
    pub reported_bytes: Counter,
    /// Ranges that are not guest RAM, or could not be given back.
    pub errors: Counter,
}

impl Samples for BalloonMetrics {
    fn samples(&self, device: &str, out: &mut Vec<Sample>) {
        let labels = [("device", device)];
        let actual = u64::from(self.actual_pages.load(Ordering::Relaxed)) * PAGE_BYTES;
        out.push(Sample::gauge(
            "hull_vmm_balloon_bytes",
            "Size of the balloon.",
            &labels,
            actual as f64,
        ));
        for (name, help, counter) in [
            (
                "hull_vmm_balloon_inflated_bytes_total",
                "Guest RAM given back by inflation.",
                &self.inflated_bytes,
            ),
            (
                "hull_vmm_balloon_reported_bytes_total",
                "Guest RAM given back as reported free pages.",
                &self.reported_bytes,
            ),
            (
                "hull_vmm_balloon_errors_total",
                "Ranges that are not guest RAM, or could not be given back.",
                &self.errors,
            ),
        ] {
            out.push(Sample::counter(name, help, &labels, counter));
        }
    }
}
