//! Counters of virtio-rng.

use crate::metrics::{Counter, Sample, Samples};

/// See the module.
#[derive(Debug, Default)]
pub struct RngMetrics {
    /// Bytes given to the guest.
    pub bytes: Counter,
}

impl Samples for RngMetrics {
    fn samples(&self, device: &str, out: &mut Vec<Sample>) {
        out.push(Sample::counter(
            "hull_vmm_rng_bytes_total",
            "Entropy given to the guest.",
            &[("device", device)],
            &self.bytes,
        ));
    }
}
