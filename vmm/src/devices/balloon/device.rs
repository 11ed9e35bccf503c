//! Three queues: pages into the balloon, pages out of it, free pages.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::GuestAddress;

use super::metrics::BalloonMetrics;
use crate::memory::{GuestMemory, PAGE_BYTES, release};
use crate::virtio::{
    Activation, Chain, DeviceFault, QueueError, VirtQueue, VirtioDevice, VirtioInterrupt,
    copy_config,
};

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const REPORT: usize = 2;
const QUEUE_SIZES: &[u16] = &[128, 128, 128];
/// Requests per turn of the event loop; each may be many pages.
const BUDGET: usize = 8;
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_PAGE_REPORTING: u64 = 1 << 5;
/// num_pages and actual.
const CONFIG_BYTES: usize = 8;
const CONFIG_ACTUAL: u64 = 4;
/// Bytes of a page number, and how many are read at a time.
const NUMBER_BYTES: usize = 4;
const NUMBERS: usize = 256;

/// What the control socket needs of the device, without the device's lock.
#[derive(Clone, Default)]
pub struct BalloonResizer(Arc<Mutex<Wish>>);

#[derive(Default)]
struct Wish {
    pages: u32,
    interrupt: Option<Arc<VirtioInterrupt>>,
}

impl BalloonResizer {
    fn wish(&self) -> std::sync::MutexGuard<'_, Wish> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the guest for a balloon of `mib` MiB. It follows when and as far as it can.
    pub fn resize(&self, mib: u32) {
        let mut wish = self.wish();
        wish.pages = u32::try_from((u64::from(mib) << 20) / PAGE_BYTES).unwrap_or(u32::MAX);
        if let Some(interrupt) = &wish.interrupt {
            interrupt.raise_config();
        }
    }
}

/// See the module.
pub struct Balloon {
    resizer: BalloonResizer,
    queues: [Option<VirtQueue>; QUEUE_SIZES.len()],
    metrics: Arc<BalloonMetrics>,
}

impl Balloon {
    /// An empty balloon.
    pub fn new(metrics: Arc<BalloonMetrics>) -> Self {
        Self {
            resizer: BalloonResizer::default(),
            queues: [const { None }; QUEUE_SIZES.len()],
            metrics,
        }
    }

    /// For the control socket.
    pub fn resizer(&self) -> BalloonResizer {
        self.resizer.clone()
    }
}

impl BalloonMetrics {
    /// Gives a range back; what is no guest RAM is counted and passed over.
    fn release(&self, memory: &GuestMemory, start: u64, length: u64) -> u64 {
        release(memory, GuestAddress(start), length).unwrap_or_else(|_| {
            self.errors.add(1);
            0
        })
    }

    /// The driver put pages into the balloon: their numbers, 32 bits each.
    fn inflate(&self, memory: &GuestMemory, chain: &Chain) -> Result<(), QueueError> {
        let mut run: Option<(u64, u64)> = None;
        let mut offset = 0;
        while offset < chain.readable.len() {
            let mut bytes = [0; NUMBERS * NUMBER_BYTES];
            let count = bytes.len().min(chain.readable.len() - offset);
            if !chain
                .readable
                .copy_out(memory, offset, &mut bytes[..count])?
            {
                return Err(QueueError::TooShort("list of pages"));
            }
            offset += count;
            let (numbers, _) = bytes[..count].as_chunks::<NUMBER_BYTES>();
            for number in numbers {
                let page = u64::from(u32::from_le_bytes(*number)) * PAGE_BYTES;
                run = match run {
                    Some((start, length)) if start + length == page => {
                        Some((start, length + PAGE_BYTES))
                    }
                    Some((start, length)) if start.checked_sub(PAGE_BYTES) == Some(page) => {
                        Some((page, length + PAGE_BYTES))
                    }
                    other => {
                        self.finish(memory, other);
                        Some((page, PAGE_BYTES))
                    }
                };
            }
        }
        self.finish(memory, run);
        Ok(())
    }

    fn finish(&self, memory: &GuestMemory, run: Option<(u64, u64)>) {
        if let Some((start, length)) = run {
            self.inflated_bytes.add(self.release(memory, start, length));
        }
    }

    /// The driver names free pages: they are the buffers of the request themselves.
    fn report(&self, memory: &GuestMemory, chain: &Chain) {
        for (start, length) in chain.writable.ranges() {
            self.reported_bytes
                .add(self.release(memory, start.0, length as u64));
        }
    }
}

impl VirtioDevice for Balloon {
    fn name(&self) -> &str {
        "balloon"
    }

    fn device_type(&self) -> u16 {
        5
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        F_DEFLATE_ON_OOM | F_PAGE_REPORTING
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; CONFIG_BYTES];
        config[..4].copy_from_slice(&self.resizer.wish().pages.to_le_bytes());
        let actual = self.metrics.actual_pages.load(Ordering::Relaxed);
        config[4..].copy_from_slice(&actual.to_le_bytes());
        copy_config(&config, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (CONFIG_ACTUAL, Ok(bytes)) = (offset, data.try_into()) {
            let actual = u32::from_le_bytes(bytes);
            self.metrics.actual_pages.store(actual, Ordering::Relaxed);
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceFault> {
        let mut given = activation.queues.into_iter();
        for slot in &mut self.queues {
            *slot = given.next().flatten();
        }
        if let Some(missing) = self.queues[..REPORT].iter().position(Option::is_none) {
            return Err(DeviceFault::MissingQueue(missing));
        }
        self.resizer.wish().interrupt = Some(activation.interrupt);
        Ok(())
    }

    fn reset(&mut self) {
        self.queues = [const { None }; QUEUE_SIZES.len()];
        self.resizer.wish().interrupt = None;
        self.metrics.actual_pages.store(0, Ordering::Relaxed);
    }

    fn handle(&mut self, event: u32, _ready: u32) -> Result<(), DeviceFault> {
        let index = event as usize;
        let Some(Some(queue)) = self.queues.get_mut(index) else {
            return Ok(());
        };
        let metrics = &self.metrics;
        queue
            .drain(BUDGET, |memory, chain| {
                match index {
                    INFLATE => metrics.inflate(memory, chain)?,
                    // Pages come back by being touched.
                    DEFLATE => {}
                    _ => metrics.report(memory, chain),
                }
                Ok(0)
            })
            .map_err(DeviceFault::queue(index))
    }
}

#[cfg(test)]
mod tests;
