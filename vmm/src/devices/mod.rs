//! The devices, a folder each, with the same files: `device` (what the guest sees),
//! `metrics` (what is counted), and where there is more, a file per thing it does.
//!
//! virtio: [`block`], [`net`], [`vsock`], [`rng`], [`balloon`], [`fs`]. Of the host: [`vfio`]. Ports: [`serial`], [`pvpanic`], [`power`].

pub mod balloon;
pub mod block;
pub mod fs;
pub mod net;
pub mod power;
pub mod pvpanic;
pub mod rng;
pub mod serial;
pub mod vfio;
pub mod vsock;
