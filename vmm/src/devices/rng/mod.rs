//! virtio-rng (virtio 1.2 §5.4): entropy from the host kernel.

mod device;
mod metrics;

pub use device::Rng;
pub use metrics::RngMetrics;
