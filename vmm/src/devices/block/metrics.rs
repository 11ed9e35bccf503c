//! Counters of virtio-blk.

use crate::metrics::{Counter, Sample, Samples};

/// See the module.
#[derive(Debug, Default)]
pub struct BlockMetrics {
    /// Requests that read.
    pub reads: Counter,
    /// Requests that write.
    pub writes: Counter,
    /// Requests that flush.
    pub flushes: Counter,
    /// Requests that failed.
    pub errors: Counter,
    /// Bytes read.
    pub read_bytes: Counter,
    /// Bytes written.
    pub written_bytes: Counter,
    /// Bytes whose space the host may take back.
    pub discarded_bytes: Counter,
}

impl Samples for BlockMetrics {
    fn samples(&self, device: &str, out: &mut Vec<Sample>) {
        let requests = [
            ("read", &self.reads),
            ("write", &self.writes),
            ("flush", &self.flushes),
            ("error", &self.errors),
        ];
        for (kind, counter) in requests {
            let labels = [("device", device), ("kind", kind)];
            out.push(Sample::counter(
                "hull_vmm_block_requests_total",
                "Disk requests by kind.",
                &labels,
                counter,
            ));
        }
        for (direction, counter) in [
            ("read", &self.read_bytes),
            ("write", &self.written_bytes),
            ("discard", &self.discarded_bytes),
        ] {
            let labels = [("device", device), ("direction", direction)];
            out.push(Sample::counter(
                "hull_vmm_block_bytes_total",
                "Disk bytes by direction.",
                &labels,
                counter,
            ));
        }
    }
}
