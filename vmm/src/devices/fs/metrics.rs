//! Counters of virtio-fs.

use std::sync::atomic::Ordering;

use hull_vmm_client::control::FsState;

use super::device::FsStatus;
use crate::metrics::{Counter, Sample, Samples};

/// See the module.
#[derive(Debug, Default)]
pub struct FsMetrics {
    /// Whether there is a back end.
    pub status: FsStatus,
    /// Interrupts that the back end asked for.
    pub calls: Counter,
    /// Requests that failed because the back end is gone.
    pub orphaned: Counter,
}

impl Samples for FsMetrics {
    fn samples(&self, device: &str, out: &mut Vec<Sample>) {
        let labels = [("device", device)];
        for (name, state) in [
            ("empty", FsState::Empty),
            ("attached", FsState::Attached),
            ("broken", FsState::Broken),
        ] {
            out.push(Sample::gauge(
                "hull_vmm_fs_state",
                "Whether the virtio-fs device has a back end: 1 for the state that it is in.",
                &[("device", device), ("state", name)],
                f64::from(u8::from(self.status.get(Ordering::Relaxed) == state)),
            ));
        }
        for (name, help, counter) in [
            (
                "hull_vmm_fs_calls_total",
                "Interrupts that the back end of virtio-fs asked for.",
                &self.calls,
            ),
            (
                "hull_vmm_fs_orphaned_requests_total",
                "virtio-fs requests that failed because the back end is gone.",
                &self.orphaned,
            ),
        ] {
            out.push(Sample::counter(name, help, &labels, counter));
        }
    }
}
