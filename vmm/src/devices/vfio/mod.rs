//! VFIO: a PCI device of the host, passed through to the guest.
//!
//! ```text
//! container (IOMMU: all guest RAM) ── group ── hardware: one device's regions and interrupts
//!                                                 │
//! device (on the PCI bus) ── space       configuration space: what is the host's, what is ours
//!                         ── bars        size and kind of each BAR, what of it can be mapped
//!                         ── mappings    mapped parts as KVM memory slots
//!                         ── interrupts  INTx, MSI, MSI-X: host eventfd = guest irqfd
//! ```
//! Container and groups arrive as descriptors; everything is opened, mapped and pinned
//! before the jail. The guest reaches the device itself only by mapped BARs and by what
//! [`space`] lets through; the IOMMU confines the device to guest RAM; vfio-pci guards the
//! registers that could harm the host.

mod abi;
mod bars;
mod container;
mod device;
#[cfg(test)]
mod fake;
mod hardware;
mod interrupts;
mod mappings;
mod metrics;
mod space;

pub use abi::{VFIO_DEVICE_RESET, VFIO_DEVICE_SET_IRQS};
pub use container::{Container, VfioError};
pub use device::{Shared as VfioShared, VfioDevice, VfioSetupError};
pub use hardware::{Hardware, VfioHardware};
pub use mappings::{KVM_SET_USER_MEMORY_REGION, KvmMemorySlots, MemorySlots};
pub use metrics::VfioMetrics;
