//! Counters of a device that is passed through.

use crate::metrics::{Counter, Sample, Samples};

/// See the module.
#[derive(Debug, Default)]
pub struct VfioMetrics {
    /// Reads that the VMM carried out for the guest.
    pub trapped_reads: Counter,
    /// Writes that the VMM carried out for the guest.
    pub trapped_writes: Counter,
    /// Accesses, interrupt set-ups and mappings that failed.
    pub errors: Counter,
}

impl Samples for VfioMetrics {
    fn samples(&self, device: &str, out: &mut Vec<Sample>) {
        for (kind, counter) in [
            ("read", &self.trapped_reads),
            ("write", &self.trapped_writes),
            ("error", &self.errors),
        ] {
            let labels = [("device", device), ("kind", kind)];
            out.push(Sample::counter(
                "hull_vmm_vfio_trapped_accesses_total",
                "Accesses to a passed-through device that left the guest.",
                &labels,
                counter,
            ));
        }
    }
}
