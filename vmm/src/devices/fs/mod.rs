//! virtio-fs (virtio 1.2 §5.11): the front end. The queues are served by hull-fsd, another
//! process, over vhost-user.
//!
//! ```text
//! guest ── doorbell (ioeventfd) ──────────────► hull-fsd ── files
//!    ▲                                             │ eventfd per queue
//!    └── MSI-X ── device: call() ◄─────────────────┘
//!                 device: socket closed ──► orphan: every request fails with ENOTCONN
//! ```
//! The device is there from the start. Its back end may come later; until then the requests
//! of the guest wait in the queues. A back end that dies is not replaced: it alone knew what
//! the guest's file numbers mean.

mod backend;
mod device;
mod metrics;
mod orphan;

pub use backend::FsError;
pub use device::{Fs, FsStatus, TAG_BYTES};
pub use metrics::FsMetrics;
