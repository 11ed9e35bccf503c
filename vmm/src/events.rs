//! The event loop of a device thread: epoll, one entry per doorbell or host file.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::virtio::{VirtioDevice, VirtioInterrupt, VirtioPciDevice};

const EVENTS_PER_WAIT: usize = 64;

/// Adds and removes host files of one device; its events come back to the device's
/// `handle` under the number given here.
#[derive(Debug, Clone)]
pub struct DevicePoller {
    epoll: Arc<Epoll>,
    device: u32,
}

impl DevicePoller {
    /// Watches `fd`, edge-triggered: a device that has no buffers is not woken in a loop.
    pub fn add(&self, fd: RawFd, event: u32, set: EventSet) -> io::Result<()> {
        let data = u64::from(self.device) << 32 | u64::from(event);
        let entry = EpollEvent::new(set | EventSet::EDGE_TRIGGERED, data);
        self.epoll.ctl(ControlOperation::Add, fd, entry)
    }

    /// Stops watching `fd`.
    pub fn remove(&self, fd: RawFd) -> io::Result<()> {
        self.epoll
            .ctl(ControlOperation::Delete, fd, EpollEvent::default())
    }
}

/// Bounds what a guest can make the VMM log: the first [`LOGS_MAX`] times of something.
#[derive(Debug, Default)]
pub struct LogBudget(AtomicU32);

/// See [`LogBudget`].
const LOGS_MAX: u32 = 16;

impl LogBudget {
    /// Whether there is another log line; takes it.
    pub fn spend(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
                (spent < LOGS_MAX).then_some(spent + 1)
            })
            .is_ok()
    }
}

struct Entry {
    device: Arc<Mutex<dyn VirtioDevice>>,
    interrupt: Arc<VirtioInterrupt>,
    kicks: Vec<EventFd>,
    logs: LogBudget,
}

/// See the module.
pub struct EventLoop {
    epoll: Arc<Epoll>,
    reserved: u32,
    entries: Vec<Option<Entry>>,
}

impl EventLoop {
    /// Without devices.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Arc::new(Epoll::new()?),
            reserved: 0,
            entries: Vec::new(),
        })
    }

    /// The poller for a device that is [`EventLoop::add`]ed with it later.
    pub fn poller(&mut self) -> DevicePoller {
        let device = self.reserved;
        self.reserved += 1;
        self.entries.push(None);
        DevicePoller {
            epoll: Arc::clone(&self.epoll),
            device,
        }
    }

    /// Serves a device: its doorbells are watched from now on.
    pub fn add(&mut self, poller: &DevicePoller, device: &VirtioPciDevice) -> io::Result<()> {
        let kicks = device
            .kicks()
            .iter()
            .map(EventFd::try_clone)
            .collect::<io::Result<Vec<_>>>()?;
        let watched = device
            .device()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .watches_doorbells();
        if watched {
            for (index, kick) in (0u32..).zip(&kicks) {
                poller.add(kick.as_raw_fd(), index, EventSet::IN)?;
            }
        }
        let entry = Entry {
            device: Arc::clone(device.device()),
            interrupt: Arc::clone(device.interrupt()),
            kicks,
            logs: LogBudget::default(),
        };
        if let Some(slot) = self.entries.get_mut(poller.device as usize) {
            *slot = Some(entry);
        }
        Ok(())
    }

    /// Serves the devices until the process ends.
    pub fn run(&self) -> io::Result<()> {
        let mut events = vec![EpollEvent::default(); EVENTS_PER_WAIT];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                self.dispatch(event.data(), event.events());
            }
        }
    }

    fn dispatch(&self, data: u64, ready: u32) {
        let event = data as u32;
        let Some(Some(entry)) = self.entries.get((data >> 32) as usize) else {
            return;
        };
        if let Some(kick) = entry.kicks.get(event as usize) {
            // EAGAIN: an earlier turn has taken it.
            let _ = kick.read();
        }
        let mut device = entry.device.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(fault) = device.handle(event, ready) {
            if entry.logs.spend() {
                tracing::warn!(device = device.name(), error = %chain(&fault), "Device is out of service until its driver resets it");
            }
            device.reset();
            drop(device);
            entry.interrupt.raise_needs_reset();
        }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_fill_the_log() {
        let budget = LogBudget::default();
        assert_eq!(
            (0..1000).filter(|_| budget.spend()).count(),
            LOGS_MAX as usize
        );
    }
}
