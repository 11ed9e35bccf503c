//! A KVM-capable machine in a box, and the images that Hull's own tests use.
//!
//! A *testnode* is a virtual machine under QEMU's software CPU that emulates AMD
//! SVM, so the Debian kernel inside it offers a complete `/dev/kvm`, vhost, VFIO
//! and an IOMMU on machines that have none of these. Its root filesystem is the
//! host's own `/`, read-only, under an overlay that lives in memory: every program
//! built on the host runs inside unchanged.
//!
//! ```text
//!  host                                         testnode (QEMU, TCG)
//!  ┌──────────────────────┐                     ┌──────────────────────────────┐
//!  │ hull-testnode run    │── 127.0.0.1:port ──►│ guest agent ── fork/exec CMD │
//!  │  client, frame       │   token, frames     │  agent, child                │
//!  │                      │                     │ guest init (PID 1)           │
//!  │ hull-testnode up     │── spawn ──► QEMU    │  overlay /, cgroup2, modules │
//!  │  node, qemu, kernel, │                     │                              │
//!  │  initramfs, modules  │◄── 9p: host, live,  │                              │
//!  └──────────────────────┘        share        └──────────────────────────────┘
//! ```
//!
//! Invariants:
//! - A node's state directory is changed only under its lock; a QEMU process is
//!   identified by pid *and* start time, so a recycled pid is never signalled.
//! - Nothing inside the node can write to the host except below the node's share.
//! - [`place`] is the only code that chooses between hardware KVM and a testnode.
//!
//! The second half, [`guest`] and [`images`], prepares what a Hull node needs to
//! run pods in tests: the guest kernel and initramfs, and sample OCI images.

pub mod agent;
pub mod cache;
pub mod child;
pub mod client;
pub mod cpio;
pub mod cpus;
pub mod frame;
pub mod guest;
pub mod guest_init;
pub mod heartbeat;
pub mod images;
pub mod initramfs;
pub mod kernel;
pub mod lz4;
pub mod modules;
pub mod node;
pub mod packages;
pub mod place;
pub mod process;
pub mod protocol;
pub mod qemu;
pub mod terminal;
