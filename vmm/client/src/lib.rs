//! What a host program needs to start and steer hull-vmm: its configuration
//! ([`config`]), how it ended ([`exit`]), and its control socket ([`control`]).
//!
//! hull-vmm opens nothing by itself. Its parent opens every file, tap and socket,
//! passes them as inherited descriptors, names them by number in the JSON
//! configuration, and passes that as a descriptor too (`hull-vmm --config-fd N`).
//!
//! [`spawn`] does that; [`client`] speaks the control protocol; [`vsock`] connects to ports
//! of the guest. [`vfio`] opens what passing a device through needs. [`fsd`] is the same for hull-fsd, the process behind virtio-fs.

pub mod client;
pub mod config;
pub mod control;
pub mod descriptor;
pub mod exit;
pub mod fsd;

pub mod rate;
pub mod share;
pub mod spawn;
pub mod vfio;
pub mod vsock;

pub use hull_timeouts::scaled;
