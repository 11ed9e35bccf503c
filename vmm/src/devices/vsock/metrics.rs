//! Counters of virtio-vsock.

use crate::metrics::{Counter, Sample, Samples};

/// See the module.
#[derive(Debug, Default)]
pub struct VsockMetrics {
    /// Connections that were established.
    pub connections: Counter,
    /// Connections that were refused or reset by the host side.
    pub resets: Counter,
    /// Bytes to the guest.
    pub received_bytes: Counter,
    /// Bytes from the guest.
    pub sent_bytes: Counter,
}

impl Samples for VsockMetrics {
    fn samples(&self, device: &str, out: &mut Vec<Sample>) {
        let label = [("device", device)];
        out.push(Sample::counter(
            "hull_vmm_vsock_connections_total",
            "Connections established.",
            &label,
            &self.connections,
        ));
        out.push(Sample::counter(
            "hull_vmm_vsock_resets_total",
            "Connections that the host side refused or reset.",
            &label,
            &self.resets,
        ));
        for (direction, counter) in [
            ("receive", &self.received_bytes),
            ("send", &self.sent_bytes),
        ] {
            let labels = [("device", device), ("direction", direction)];
            out.push(Sample::counter(
                "hull_vmm_vsock_bytes_total",
                "Bytes by direction as the guest sees it.",
                &labels,
                counter,
            ));
        }
    }
}
