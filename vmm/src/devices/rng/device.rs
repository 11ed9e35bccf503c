//! One queue of buffers to fill.

use std::sync::Arc;

use super::metrics::RngMetrics;
use crate::virtio::{Activation, DeviceFault, VirtQueue, VirtioDevice};

const QUEUE_SIZES: &[u16] = &[64];
/// Most bytes per request: the guest's pool takes 64 bytes at a time.
const REQUEST_MAX_BYTES: usize = 1024;
/// Requests per turn of the event loop.
const BUDGET: usize = 16;

/// See the module.
pub struct Rng {
    queue: Option<VirtQueue>,
    metrics: Arc<RngMetrics>,
}

impl Rng {
    /// An idle device.
    pub fn new(metrics: Arc<RngMetrics>) -> Self {
        Self {
            queue: None,
            metrics,
        }
    }
}

impl VirtioDevice for Rng {
    fn name(&self) -> &str {
        "rng"
    }

    fn device_type(&self) -> u16 {
        4
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), DeviceFault> {
        let queue = activation.queues.first_mut().and_then(Option::take);
        self.queue = Some(queue.ok_or(DeviceFault::MissingQueue(0))?);
        Ok(())
    }

    fn reset(&mut self) {
        self.queue = None;
    }

    fn handle(&mut self, _event: u32, _ready: u32) -> Result<(), DeviceFault> {
        let Some(queue) = &mut self.queue else {
            return Ok(());
        };
        let metrics = &self.metrics;
        queue
            .drain(BUDGET, |memory, chain| {
                let mut random = [0; REQUEST_MAX_BYTES];
                let wanted = chain.writable.len().min(REQUEST_MAX_BYTES);
                // SAFETY: the buffer has room for `wanted` bytes.
                let count = unsafe { libc::getrandom(random.as_mut_ptr().cast(), wanted, 0) };
                let count = usize::try_from(count).unwrap_or(0).min(wanted);
                let written = chain.writable.copy_in(memory, 0, &random[..count])?;
                metrics.bytes.add(written as u64);
                Ok(written as u32)
            })
            .map_err(DeviceFault::queue(0))
    }
}
