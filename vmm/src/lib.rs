//! hull-vmm: one virtual machine on KVM.
//!
//! ```text
//!            config (JSON) and descriptors of the parent
//!                             │
//! main thread ── vm: build ── jail ── control socket, SIGTERM, end of the VM
//!   ├─ vcpuN   cpu::run: KVM_RUN; ports (serial, pvpanic, power), PCI registers
//!   ├─ disks   events: queues of the virtio-blk devices
//!   └─ devices events: queues and host sockets of net, vsock, rng, balloon
//! ```
//! Invariants:
//! - Nothing is opened by path (but the unix sockets in the vsock directory).
//! - The guest runs only when every thread is in the jail.
//! - What the guest writes is read once, checked, then used; what it does wrong costs it the
//!   device, never the VMM.
//! - The first cause of the end is the one that is recorded ([`exit`]).

pub mod acpi;
pub mod boot;
pub mod config;
pub mod control;
pub mod cpu;
pub mod ctl;
pub mod descriptors;
pub mod devices;
pub mod error;
pub mod events;
pub mod exit;
#[cfg(any(test, feature = "hostile"))]
#[allow(clippy::unwrap_used, dead_code, reason = "code of tests")]
pub mod hostile;
pub mod interrupts;
pub mod jail;
pub mod layout;
pub mod memory;
pub mod metrics;
pub mod pci;
pub mod rate;
pub mod virtio;
pub mod vm;
