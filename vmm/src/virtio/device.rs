//! What a virtio device is to the transport and to the event loop.

use std::sync::Arc;

use super::interrupt::VirtioInterrupt;
use super::queue::{QueueError, VirtQueue};
use crate::memory::GuestMemory;

/// What a device gets when the driver is ready (DRIVER_OK).
pub struct Activation {
    /// Guest RAM.
    pub memory: GuestMemory,
    /// Features that the driver accepted.
    pub features: u64,
    /// Queues by index; `None` for those that the driver left off.
    pub queues: Vec<Option<VirtQueue>>,
    /// Configuration change interrupt.
    pub interrupt: Arc<VirtioInterrupt>,
}

/// Why a device goes out of service until the driver resets it.
#[derive(Debug, thiserror::Error)]
pub enum DeviceFault {
    /// The driver broke a queue.
    #[error("Queue {index} is broken")]
    Queue {
        /// Number of the queue.
        index: usize,
        /// Cause.
        #[source]
        source: QueueError,
    },
    /// The driver did not switch on a queue that the device needs.
    #[error("Queue {0} was not enabled")]
    MissingQueue(usize),
    /// The host side of the device failed.
    #[error("Failed to {doing}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

impl DeviceFault {
    /// A closure that blames queue `index`.
    pub fn queue(index: usize) -> impl Fn(QueueError) -> Self {
        move |source| Self::Queue { index, source }
    }

    /// A closure for a failed host operation.
    pub fn host(doing: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Host { doing, source }
    }
}

/// A virtio device (virtio 1.2 §2). Called under one mutex.
pub trait VirtioDevice: Send {
    /// Name in logs and metrics.
    fn name(&self) -> &str;
    /// Device type (virtio 1.2 §5).
    fn device_type(&self) -> u16;
    /// Largest size of each queue.
    fn queue_sizes(&self) -> &[u16];
    /// Features of the device type; the transport adds its own.
    fn features(&self) -> u64;
    /// Whether the event loop watches its doorbells. A device whose queues another process
    /// serves says no, and watches them itself when it has to.
    fn watches_doorbells(&self) -> bool {
        true
    }
    /// Reads device configuration; offsets behind its end read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);
    /// Writes device configuration.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}
    /// The driver is ready.
    fn activate(&mut self, activation: Activation) -> Result<(), DeviceFault>;
    /// Back to the state before [`VirtioDevice::activate`].
    fn reset(&mut self);
    /// Queue `event` was kicked, or, from the number of queues on, one of the device's own
    /// sources is ready with these epoll events.
    fn handle(&mut self, event: u32, ready: u32) -> Result<(), DeviceFault>;
}

/// Copies from a configuration structure that starts at offset 0.
pub fn copy_config(config: &[u8], offset: u64, data: &mut [u8]) {
    for (index, byte) in data.iter_mut().enumerate() {
        let position = usize::try_from(offset)
            .ok()
            .and_then(|start| start.checked_add(index));
        *byte = position.and_then(|p| config.get(p)).copied().unwrap_or(0);
    }
}
