//! virtio-blk (virtio 1.2 §5.2) on a file or block device that the parent opened.
//!
//! A disk may have no backing: then its capacity is 0 and every request fails. A backing
//! is attached and taken away at run time; the guest learns of it by a configuration
//! change interrupt. The guest's buffers go to preadv and pwritev directly.

mod backing;
mod device;
mod metrics;
mod request;

pub use backing::{BLKGETSIZE64, Backing, BackingError};
pub use device::{Block, SECTOR_BYTES};
pub use metrics::BlockMetrics;
