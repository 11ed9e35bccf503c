//! What the guest sees: a tag and queues. What serves them: a back end, or nobody any more.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hull_vmm_client::control::FsState;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::backend::{Backend, FsError};
use super::metrics::FsMetrics;
use super::orphan::fail_requests;
use crate::events::{DevicePoller, chain};
use crate::virtio::{Activation, DeviceFault, VirtQueue, VirtioDevice, copy_config};

const DEVICE_TYPE: u16 = 26;
const QUEUE_SIZE: u16 = 256;
/// Queue 0 is for what must not wait.
const URGENT_QUEUES: usize = 1;
/// Length of the tag, of which the rest is zeroes (virtio 1.2 §5.11.4).
pub const TAG_BYTES: usize = 36;
const CONFIG_BYTES: usize = TAG_BYTES + 4;

/// Whether there is a back end, readable without the device's lock.
#[derive(Debug, Clone, Default)]
pub struct FsStatus(Arc<AtomicU8>);

impl FsStatus {
    /// The state.
    pub fn get(&self, ordering: Ordering) -> FsState {
        match self.0.load(ordering) {
            0 => FsState::Empty,
            1 => FsState::Attached,
            _ => FsState::Broken,
        }
    }

    fn set(&self, state: FsState) {
        let number = match state {
            FsState::Empty => 0,
            FsState::Attached => 1,
            FsState::Broken => 2,
        };
        self.0.store(number, Ordering::Release);
    }
}

/// See the module.
pub struct Fs {
    config: [u8; CONFIG_BYTES],
    queue_sizes: Vec<u16>,
    /// What the back end signals, by queue.
    calls: Vec<EventFd>,
    poller: DevicePoller,
    backend: Option<Backend>,
    active: Option<Activation>,
    metrics: Arc<FsMetrics>,
}

impl Fs {
    /// Without a back end. The tag has been checked to fit.
    pub fn new(
        tag: &str,
        request_queues: u16,
        poller: DevicePoller,
        metrics: Arc<FsMetrics>,
    ) -> std::io::Result<Self> {
        let mut config = [0; CONFIG_BYTES];
        for (to, from) in config[..TAG_BYTES].iter_mut().zip(tag.bytes()) {
            *to = from;
        }
        config[TAG_BYTES..].copy_from_slice(&u32::from(request_queues).to_le_bytes());
        let queues = usize::from(request_queues) + URGENT_QUEUES;
        let calls = (0..queues)
            .map(|_| EventFd::new(EFD_NONBLOCK))
            .collect::<Result<Vec<_>, _>>()?;
        for (event, call) in (queues as u32..).zip(&calls) {
            poller.add(call.as_raw_fd(), event, EventSet::IN)?;
        }
        Ok(Self {
            config,
            queue_sizes: vec![QUEUE_SIZE; queues],
            calls,
            poller,
            backend: None,
            active: None,
            metrics,
        })
    }

    /// For the control socket.
    pub fn status(&self) -> FsStatus {
        self.metrics.status.clone()
    }

    fn state(&self) -> FsState {
        self.metrics.status.get(Ordering::Acquire)
    }

    fn queues(&self) -> usize {
        self.queue_sizes.len()
    }

    /// Number of the event that the back end's socket raises.
    fn socket_event(&self) -> u32 {
        2 * self.queues() as u32
    }

    /// Gives the device its back end, at the other end of `stream`.
    pub fn attach(&mut self, stream: UnixStream) -> Result<(), FsError> {
        if self.state() != FsState::Empty {
            return Err(FsError::Taken);
        }
        let mut backend = Backend::connect(stream, self.queues() as u64)?;
        if let Some(active) = &self.active {
            start(&mut backend, active, &self.calls)?;
        }
        let gone = EventSet::HANG_UP | EventSet::READ_HANG_UP;
        self.poller
            .add(backend.socket(), self.socket_event(), gone)
            .map_err(FsError::Socket)?;
        self.backend = Some(backend);
        self.metrics.status.set(FsState::Attached);
        Ok(())
    }

    /// The back end is gone: its requests, and all that come, are answered here.
    fn orphan(&mut self) -> Result<(), DeviceFault> {
        self.metrics.status.set(FsState::Broken);
        if let Some(backend) = self.backend.take() {
            let _ = self.poller.remove(backend.socket());
        }
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        for index in 0..active.queues.len() {
            let Some(Some(queue)) = active.queues.get_mut(index) else {
                continue;
            };
            queue
                .resume_from_used()
                .map_err(DeviceFault::queue(index))?;
            if let Some(doorbell) = queue.doorbell() {
                self.poller
                    .add(doorbell.as_raw_fd(), index as u32, EventSet::IN)
                    .map_err(DeviceFault::host("watch a doorbell"))?;
            }
            fail(queue, index, &self.metrics)?;
        }
        Ok(())
    }

    fn called(&self, index: usize) {
        let Some(call) = self.calls.get(index) else {
            return;
        };
        // EAGAIN: an earlier turn has taken it.
        let _ = call.read();
        self.metrics.calls.add(1);
        if let Some(active) = &self.active {
            active.interrupt.raise_queue(index);
        }
    }
}

fn fail(queue: &mut VirtQueue, index: usize, metrics: &FsMetrics) -> Result<(), DeviceFault> {
    let failed = fail_requests(queue).map_err(DeviceFault::queue(index))?;
    metrics.orphaned.add(failed);
    Ok(())
}

fn start(backend: &mut Backend, activation: &Activation, calls: &[EventFd]) -> Result<(), FsError> {
    backend.start(
        activation.features,
        &activation.memory,
        &activation.queues,
        calls,
    )
}

impl VirtioDevice for Fs {
    fn name(&self) -> &str {
        "fs"
    }

    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        0
    }

    fn watches_doorbells(&self) -> bool {
        // They are the back end's; see `orphan`.
        false
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&self.config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceFault> {
        if let Some(missing) = activation.queues.iter().position(Option::is_none) {
            return Err(DeviceFault::MissingQueue(missing));
        }
        let active = self.active.insert(activation);
        let Some(backend) = &mut self.backend else {
            return match self.state() {
                FsState::Broken => self.orphan(),
                _ => Ok(()),
            };
        };
        if let Err(error) = start(backend, active, &self.calls) {
            tracing::error!(error = %chain(&error), "The back end of virtio-fs cannot be used");
            return self.orphan();
        }
        Ok(())
    }

    fn reset(&mut self) {
        let queues = self.queues();
        let Some(active) = self.active.take() else {
            return;
        };
        if self.state() == FsState::Broken {
            for doorbell in active.queues.iter().flatten() {
                if let Some(doorbell) = doorbell.doorbell() {
                    let _ = self.poller.remove(doorbell.as_raw_fd());
                }
            }
        }
        if let Some(backend) = &mut self.backend
            && let Err(error) = backend.stop(queues)
        {
            tracing::error!(error = %chain(&error), "The back end of virtio-fs does not stop");
            if let Some(backend) = self.backend.take() {
                let _ = self.poller.remove(backend.socket());
            }
            self.metrics.status.set(FsState::Broken);
        }
    }

    fn handle(&mut self, event: u32, ready: u32) -> Result<(), DeviceFault> {
        let queues = self.queues();
        let index = event as usize;
        if event == self.socket_event() {
            let gone = EventSet::HANG_UP | EventSet::READ_HANG_UP | EventSet::ERROR;
            if self.backend.is_some() && EventSet::from_bits_truncate(ready).intersects(gone) {
                tracing::error!("The back end of virtio-fs is gone: its files are out of reach");
                return self.orphan();
            }
            return Ok(());
        }
        if index >= queues {
            self.called(index - queues);
            return Ok(());
        }
        if self.state() != FsState::Broken {
            return Ok(());
        }
        let metrics = Arc::clone(&self.metrics);
        match self.active.as_mut().map(|active| &mut active.queues) {
            Some(all) => match all.get_mut(index) {
                Some(Some(queue)) => fail(queue, index, &metrics),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
