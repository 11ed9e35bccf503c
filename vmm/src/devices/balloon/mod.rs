//! virtio-balloon (virtio 1.2 §5.5): guest RAM that the guest does not need goes back to the
//! host.
//!
//! Free page reporting does it without being asked: the guest names free pages, the host
//! frees them, the guest gets zeroed ones when it touches them again. The balloon proper is
//! resized over the control socket; the guest takes pages out of it when it would run out of
//! memory otherwise.

mod device;
mod metrics;

pub use device::{Balloon, BalloonResizer};
pub use metrics::BalloonMetrics;
