//! Counters of virtio-net, seen from the guest.

use crate::metrics::{Counter, Sample, Samples};

/// See the module.
#[derive(Debug, Default)]
pub struct NetMetrics {
    /// Frames to the guest.
    pub received_frames: Counter,
    /// Bytes to the guest.
    pub received_bytes: Counter,
    /// Frames from the guest.
    pub sent_frames: Counter,
    /// Bytes from the guest.
    pub sent_bytes: Counter,
    /// Frames that were lost in either direction.
    pub dropped_frames: Counter,
}

impl Samples for NetMetrics {
    fn samples(&self, device: &str, out: &mut Vec<Sample>) {
        let frames = [
            ("receive", &self.received_frames),
            ("send", &self.sent_frames),
            ("drop", &self.dropped_frames),
        ];
        for (direction, counter) in frames {
            let labels = [("device", device), ("direction", direction)];
            out.push(Sample::counter(
                "hull_vmm_net_frames_total",
                "Frames by direction as the guest sees it.",
                &labels,
                counter,
            ));
        }
        for (direction, counter) in [
            ("receive", &self.received_bytes),
            ("send", &self.sent_bytes),
        ] {
            let labels = [("device", device), ("direction", direction)];
            out.push(Sample::counter(
                "hull_vmm_net_bytes_total",
                "Bytes by direction as the guest sees it.",
                &labels,
                counter,
            ));
        }
    }
}
