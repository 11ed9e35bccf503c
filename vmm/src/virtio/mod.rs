//! Virtio 1.2 over PCI (modern only): the transport and what devices are written against.
//!
//! ```text
//! vCPU thread ── config space, common config ──► VirtioPciDevice ── activate/reset ─┐
//!             └─ doorbell (ioeventfd) ─► EventLoop thread ── handle ──► VirtioDevice ◄┘
//!                                                             │ VirtQueue (checked chains)
//!                              guest ◄── irqfd ── VirtioInterrupt
//! ```
//! Invariants: a device is only touched under its mutex. A chain is walked once, each
//! segment is checked against guest memory, and only then used. A [`DeviceFault`] takes the
//! device out of service (DEVICE_NEEDS_RESET) until the driver resets it; it never ends
//! the VMM.

mod common;
mod device;
mod interrupt;
mod pci;
mod queue;

pub use device::{Activation, DeviceFault, VirtioDevice, copy_config};
pub use interrupt::VirtioInterrupt;
pub use pci::{Doorbells, KvmDoorbells, PciSetupError, VirtioPciDevice};
pub use queue::{Buffers, Chain, MAX_SEGMENTS, QueueError, Rings, VirtQueue};

/// VIRTIO_F_INDIRECT_DESC
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX
pub const F_EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1
pub const F_VERSION_1: u64 = 1 << 32;

#[cfg(any(test, feature = "hostile"))]
#[allow(clippy::unwrap_used, dead_code, reason = "code of tests")]
pub(crate) mod test_support;
