//! virtio-net (virtio 1.2 §5.1) on a tap that the parent attached and passed.
//!
//! Frames go between tap and guest with a 12-byte virtio_net_hdr in front, so checksum and
//! segmentation offloads pass through. Which offloads the tap may use follows from the
//! features that the driver accepted.

mod device;
mod metrics;
mod tap;

pub use device::{AttachError, MacError, Net, parse_mac};
pub use metrics::NetMetrics;
pub use tap::{TUNSETOFFLOAD, TUNSETVNETHDRSZ, Tap};
