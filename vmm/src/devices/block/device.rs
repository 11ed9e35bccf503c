//! The device: configuration, activation, attach and detach.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hull_vmm_client::rate::RateLimits;
use vmm_sys_util::epoll::EventSet;

use super::backing::{Backing, BackingError};
use super::metrics::BlockMetrics;
use super::request::{RANGE_MAX_SECTORS, RANGES_MAX, Target};
use crate::events::DevicePoller;
use crate::rate::RateLimiter;
use crate::virtio::{
    Activation, DeviceFault, MAX_SEGMENTS, VirtQueue, VirtioDevice, VirtioInterrupt, copy_config,
};

/// Unit of the capacity.
pub const SECTOR_BYTES: u64 = 512;
const QUEUE_SIZES: &[u16] = &[256];
const EVENT_LIMIT: u32 = 1;
/// Requests per turn of the event loop.
const BUDGET: usize = 64;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;
/// Configuration up to write_zeroes_may_unmap (virtio 1.2 §5.2.4).
const CONFIG_BYTES: usize = 60;
/// Discards begin and end at blocks of a host file, in sectors.
const DISCARD_ALIGNMENT_SECTORS: u32 = 8;
/// Data buffers per request; with header and status below the limit of a chain, and not
/// more than the queue holds without indirect descriptors.
const DATA_SEGMENTS_MAX: u32 = 254;
const _: () = assert!((DATA_SEGMENTS_MAX as usize) < MAX_SEGMENTS - 2);

/// See the module.
pub struct Block {
    serial: String,
    read_only: bool,
    backing: Option<Backing>,
    attached: Arc<AtomicBool>,
    queue: Option<VirtQueue>,
    interrupt: Option<Arc<VirtioInterrupt>>,
    limiter: Option<RateLimiter>,
    metrics: Arc<BlockMetrics>,
}

impl Block {
    /// A disk without backing.
    pub fn new(serial: String, read_only: bool, metrics: Arc<BlockMetrics>) -> Self {
        Self {
            serial,
            read_only,
            backing: None,
            attached: Arc::default(),
            queue: None,
            interrupt: None,
            limiter: None,
            metrics,
        }
    }

    /// The serial number.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Whether there is a backing.
    pub fn is_attached(&self) -> bool {
        self.backing.is_some()
    }

    /// Whether there is a backing, to be read while the device is at work.
    pub fn attached_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.attached)
    }

    /// Lets `poller` watch over the limits, which can be changed from then on.
    pub fn watch_limits(&mut self, limits: RateLimits, poller: &DevicePoller) -> io::Result<()> {
        let limiter = RateLimiter::new(limits)?;
        poller.add(limiter.as_raw_fd(), EVENT_LIMIT, EventSet::IN)?;
        self.limiter = Some(limiter);
        Ok(())
    }

    /// Changes the limits.
    pub fn set_limits(&mut self, limits: RateLimits) {
        if let Some(limiter) = &mut self.limiter {
            limiter.set(limits, Instant::now());
        }
        if let Some(queue) = &self.queue {
            queue.kick_later();
        }
    }

    /// Puts a file behind the disk, in place of the one that is there, and tells the guest.
    pub fn attach(&mut self, fd: OwnedFd) -> Result<(), BackingError> {
        self.backing = Some(Backing::new(fd, self.read_only)?);
        self.attached.store(true, Ordering::Release);
        self.tell_guest();
        Ok(())
    }

    /// Takes the backing away; false when there was none.
    pub fn detach(&mut self) -> bool {
        let had = self.backing.take().is_some();
        self.attached.store(false, Ordering::Release);
        self.tell_guest();
        had
    }

    fn tell_guest(&self) {
        if let Some(interrupt) = &self.interrupt {
            interrupt.raise_config();
        }
    }
}

impl VirtioDevice for Block {
    fn name(&self) -> &str {
        &self.serial
    }

    fn device_type(&self) -> u16 {
        2
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        let by_kind = if self.read_only {
            F_RO
        } else {
            F_DISCARD | F_WRITE_ZEROES
        };
        F_SEG_MAX | F_FLUSH | by_kind
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; CONFIG_BYTES];
        let sectors = self.backing.as_ref().map_or(0, Backing::sectors);
        config[..8].copy_from_slice(&sectors.to_le_bytes());
        for (at, value) in [
            (12, DATA_SEGMENTS_MAX),
            (36, RANGE_MAX_SECTORS),
            (40, RANGES_MAX),
            (44, DISCARD_ALIGNMENT_SECTORS),
            (48, RANGE_MAX_SECTORS),
            (52, RANGES_MAX),
            // write_zeroes_may_unmap
            (56, 1),
        ] {
            config[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        copy_config(&config, offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), DeviceFault> {
        let queue = activation.queues.first_mut().and_then(Option::take);
        self.queue = Some(queue.ok_or(DeviceFault::MissingQueue(0))?);
        self.interrupt = Some(activation.interrupt);
        Ok(())
    }

    fn reset(&mut self) {
        self.queue = None;
        self.interrupt = None;
    }

    fn handle(&mut self, event: u32, _ready: u32) -> Result<(), DeviceFault> {
        if event == EVENT_LIMIT
            && let Some(limiter) = &mut self.limiter
        {
            limiter.fired();
        }
        let Some(queue) = &mut self.queue else {
            return Ok(());
        };
        let target = Target {
            backing: self.backing.as_ref(),
            read_only: self.read_only,
            serial: &self.serial,
            metrics: &self.metrics,
        };
        queue
            .drain_limited(BUDGET, self.limiter.as_mut(), |memory, chain| {
                target.execute(memory, chain)
            })
            .map_err(DeviceFault::queue(0))
    }
}

#[cfg(test)]
mod tests;
