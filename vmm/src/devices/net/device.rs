//! One pair of queues.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use hull_vmm_client::rate::RateLimits;
use vmm_sys_util::epoll::EventSet;

use super::metrics::NetMetrics;
use super::tap::{HEADER_BYTES, TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, Tap};
use crate::events::DevicePoller;
use crate::rate::RateLimiter;
use crate::virtio::{
    Activation, Chain, DeviceFault, QueueError, VirtQueue, VirtioDevice, VirtioInterrupt,
    copy_config,
};

const RECEIVE: usize = 0;
const SEND: usize = 1;
const EVENT_TAP: u32 = 2;
const EVENT_RECEIVE_LIMIT: u32 = 3;
const EVENT_SEND_LIMIT: u32 = 4;
const QUEUE_SIZES: &[u16] = &[256, 256];
/// Frames per direction and turn of the event loop.
const BUDGET: usize = 128;
/// Largest frame with segmentation offload, plus Ethernet header and virtio header.
const FRAME_MAX_BYTES: usize = 65_535 + 18 + HEADER_BYTES;
/// Most receive buffers that one frame is spread over.
const BUFFERS_PER_FRAME_MAX: usize = 64;

const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_GUEST_TSO6: u64 = 1 << 8;
const F_GUEST_ECN: u64 = 1 << 9;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
const F_HOST_ECN: u64 = 1 << 13;
const F_MRG_RXBUF: u64 = 1 << 15;
const F_STATUS: u64 = 1 << 16;
/// Status register: the link is up.
const LINK_UP: u16 = 1;

/// Not a MAC address of one station.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not a unicast MAC address of the form aa:bb:cc:dd:ee:ff")]
pub struct MacError(pub String);

/// A tap cannot be put behind a network.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is one.
    #[error("Network {0} has a tap already")]
    Attached(String),
    /// It is none, or cannot be set up.
    #[error("Failed to set up the tap")]
    Tap(#[source] io::Error),
}

/// Parses "aa:bb:cc:dd:ee:ff".
pub fn parse_mac(text: &str) -> Result<[u8; 6], MacError> {
    let parse = || {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| {
                part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            })?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        let multicast = mac[0] & 1 != 0;
        (parts.next().is_none() && !multicast).then_some(mac)
    };
    parse().ok_or_else(|| MacError(text.to_owned()))
}

struct Active {
    receive: VirtQueue,
    send: VirtQueue,
    mergeable: bool,
    features: u64,
    interrupt: Arc<VirtioInterrupt>,
}

/// See the module.
pub struct Net {
    id: String,
    mac: [u8; 6],
    mtu: u16,
    /// Without one the link is down.
    tap: Option<Tap>,
    poller: DevicePoller,
    active: Option<Active>,
    /// A frame of this length waits in `frame` for receive buffers.
    pending: Option<usize>,
    frame: Vec<u8>,
    tap_readable: bool,
    receive_limiter: Option<RateLimiter>,
    send_limiter: Option<RateLimiter>,
    metrics: Arc<NetMetrics>,
}

impl Net {
    /// An idle device. A tap can be attached later.
    pub fn new(
        id: String,
        mac: [u8; 6],
        mtu: u16,
        tap: Option<Tap>,
        poller: DevicePoller,
        metrics: Arc<NetMetrics>,
    ) -> Self {
        let frame = vec![0; FRAME_MAX_BYTES];
        Self {
            id,
            mac,
            mtu,
            tap,
            poller,
            active: None,
            pending: None,
            frame,
            tap_readable: false,
            receive_limiter: None,
            send_limiter: None,
            metrics,
        }
    }

    /// Connects a network without one to a tap, and tells the guest that the link is up.
    pub fn attach(&mut self, fd: OwnedFd) -> Result<(), AttachError> {
        if self.tap.is_some() {
            return Err(AttachError::Attached(self.id.clone()));
        }
        let tap = Tap::new(fd).map_err(AttachError::Tap)?;
        self.connect(tap).map_err(AttachError::Tap)
    }

    fn connect(&mut self, tap: Tap) -> io::Result<()> {
        if let Some(active) = &self.active {
            open_tap(&tap, active.features, &self.poller)?;
            self.tap_readable = true;
            active.interrupt.raise_config();
        }
        self.tap = Some(tap);
        Ok(())
    }

    /// Takes the tap away, and tells the guest that the link is down; false when there was
    /// none.
    pub fn detach(&mut self) -> bool {
        let Some(tap) = self.tap.take() else {
            return false;
        };
        self.pending = None;
        self.tap_readable = false;
        if let Some(active) = &self.active {
            // It is closed next, which ends the watching too.
            let _ = self.poller.remove(tap.as_raw_fd());
            active.interrupt.raise_config();
        }
        true
    }

    /// Watches over the limits, which can be changed from then on.
    pub fn watch_limits(&mut self, receive: RateLimits, send: RateLimits) -> io::Result<()> {
        let watched = |limits, event| {
            let limiter = RateLimiter::new(limits)?;
            self.poller.add(limiter.as_raw_fd(), event, EventSet::IN)?;
            io::Result::Ok(Some(limiter))
        };
        let receive = watched(receive, EVENT_RECEIVE_LIMIT)?;
        self.send_limiter = watched(send, EVENT_SEND_LIMIT)?;
        self.receive_limiter = receive;
        Ok(())
    }

    /// Changes the limits.
    pub fn set_limits(&mut self, receive: RateLimits, send: RateLimits) {
        let now = Instant::now();
        for (limiter, limits) in [
            (&mut self.receive_limiter, receive),
            (&mut self.send_limiter, send),
        ] {
            if let Some(limiter) = limiter {
                limiter.set(limits, now);
            }
        }
        if let Some(active) = &self.active {
            active.receive.kick_later();
            active.send.kick_later();
        }
    }

    /// Moves frames from the tap to the guest until one side has no more.
    fn receive(&mut self) -> Result<(), DeviceFault> {
        let (Some(active), Some(tap)) = (&mut self.active, &self.tap) else {
            return Ok(());
        };
        let failed = DeviceFault::queue(RECEIVE);
        let mut delivered = 0;
        while self.tap_readable || self.pending.is_some() {
            if delivered == BUDGET {
                active.receive.kick_later();
                break;
            }
            // The frames wait in the tap, which drops what it has no room for.
            if self.pending.is_none()
                && let Some(limiter) = &mut self.receive_limiter
                && !limiter.admits()
            {
                break;
            }
            let length = match self.pending {
                Some(length) => length,
                None => match tap.read(&mut self.frame) {
                    Ok(length) => length,
                    Err(error) => {
                        match error.kind() {
                            io::ErrorKind::Interrupted => continue,
                            io::ErrorKind::WouldBlock => {}
                            // The tap is down or gone: nothing comes until it is back.
                            _ => self.metrics.dropped_frames.add(1),
                        }
                        self.tap_readable = false;
                        break;
                    }
                },
            };
            self.pending = Some(length);
            match active.deliver(&mut self.frame[..length]).map_err(&failed)? {
                Delivery::Done => {
                    if let Some(limiter) = &mut self.receive_limiter {
                        limiter.spend(length as u64);
                    }
                    self.metrics.received_frames.add(1);
                    self.metrics
                        .received_bytes
                        .add(length.saturating_sub(HEADER_BYTES) as u64);
                }
                Delivery::Dropped => self.metrics.dropped_frames.add(1),
                Delivery::NoBuffers => break,
            }
            self.pending = None;
            delivered += 1;
        }
        if delivered > 0 {
            active.receive.notify().map_err(&failed)?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), DeviceFault> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let (tap, metrics) = (&self.tap, &self.metrics);
        active
            .send
            .drain_limited(BUDGET, self.send_limiter.as_mut(), |memory, chain| {
                let length = chain.readable.len();
                if length <= HEADER_BYTES || length > FRAME_MAX_BYTES {
                    metrics.dropped_frames.add(1);
                    return Ok(0);
                }
                let vectors = chain.readable.io_vectors(memory, 0, length)?;
                // What is sent while the link is down is lost.
                match tap.as_ref().map(|tap| tap.write(&vectors)) {
                    Some(Ok(_)) => {
                        metrics.sent_frames.add(1);
                        metrics.sent_bytes.add((length - HEADER_BYTES) as u64);
                    }
                    // Bad headers, a tap that is down: lost like on a wire.
                    Some(Err(_)) | None => metrics.dropped_frames.add(1),
                }
                Ok(0)
            })
            .map_err(DeviceFault::queue(SEND))
    }
}

/// Gives the tap the offloads of the features that the driver accepted, and watches it.
fn open_tap(tap: &Tap, features: u64, poller: &DevicePoller) -> io::Result<()> {
    tap.set_offloads(offloads(features))?;
    poller.add(tap.as_raw_fd(), EVENT_TAP, EventSet::IN)
}

enum Delivery {
    Done,
    Dropped,
    NoBuffers,
}

impl Active {
    /// Copies a frame into as many receive buffers as it takes.
    fn deliver(&mut self, frame: &mut [u8]) -> Result<Delivery, QueueError> {
        let mut chains: Vec<Chain> = Vec::new();
        let mut room = 0;
        while room < frame.len() {
            let full = chains.len()
                >= if self.mergeable {
                    BUFFERS_PER_FRAME_MAX
                } else {
                    1
                };
            let next = if full { None } else { self.receive.pop()? };
            let Some(chain) = next else {
                // The driver rings when it puts new buffers in; it may have done so just
                // before the bell was armed. Armed while the buffers that are too few count
                // as taken, or they would look new again and again.
                if !full && self.receive.arm()? {
                    continue;
                }
                for _ in &chains {
                    self.receive.unpop();
                }
                return Ok(if full {
                    Delivery::Dropped
                } else {
                    Delivery::NoBuffers
                });
            };
            if chain.writable.len() < HEADER_BYTES {
                return Err(QueueError::TooShort("received frame"));
            }
            room += chain.writable.len();
            chains.push(chain);
        }
        // num_buffers, behind the 10 bytes that the tap knows.
        if let Some(field) = frame.get_mut(HEADER_BYTES - 2..HEADER_BYTES) {
            field.copy_from_slice(&(chains.len() as u16).to_le_bytes());
        }
        let mut done = 0;
        for chain in &chains {
            let written = chain
                .writable
                .copy_in(self.receive.memory(), 0, &frame[done..])?;
            self.receive.complete(chain.head, written as u32)?;
            done += written;
        }
        Ok(Delivery::Done)
    }
}

/// TUNSETOFFLOAD flags for what the driver accepted.
fn offloads(features: u64) -> u32 {
    [
        (F_GUEST_CSUM, TUN_F_CSUM),
        (F_GUEST_TSO4, TUN_F_TSO4),
        (F_GUEST_TSO6, TUN_F_TSO6),
        (F_GUEST_ECN, TUN_F_TSO_ECN),
    ]
    .iter()
    .filter(|(feature, _)| features & feature != 0)
    .fold(0, |flags, (_, flag)| flags | flag)
}

impl VirtioDevice for Net {
    fn name(&self) -> &str {
        &self.id
    }

    fn device_type(&self) -> u16 {
        1
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        F_CSUM
            | F_GUEST_CSUM
            | F_MTU
            | F_MAC
            | F_GUEST_TSO4
            | F_GUEST_TSO6
            | F_GUEST_ECN
            | F_HOST_TSO4
            | F_HOST_TSO6
            | F_HOST_ECN
            | F_MRG_RXBUF
            | F_STATUS
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.mac);
        let status = if self.tap.is_some() { LINK_UP } else { 0 };
        config[6..8].copy_from_slice(&status.to_le_bytes());
        config[8..10].copy_from_slice(&1u16.to_le_bytes());
        config[10..].copy_from_slice(&self.mtu.to_le_bytes());
        copy_config(&config, offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), DeviceFault> {
        let mut take = |index: usize| {
            let queue = activation.queues.get_mut(index).and_then(Option::take);
            queue.ok_or(DeviceFault::MissingQueue(index))
        };
        let (receive, send) = (take(RECEIVE)?, take(SEND)?);
        let features = activation.features;
        self.active = Some(Active {
            receive,
            send,
            mergeable: features & F_MRG_RXBUF != 0,
            features,
            interrupt: activation.interrupt,
        });
        self.pending = None;
        self.tap_readable = self.tap.is_some();
        match &self.tap {
            Some(tap) => open_tap(tap, features, &self.poller)
                .map_err(DeviceFault::host("set up the tap for its driver")),
            None => Ok(()),
        }
    }

    fn reset(&mut self) {
        if let (Some(_), Some(tap)) = (self.active.take(), &self.tap) {
            // It was added by activate; when that failed half-way there is nothing to remove.
            let _ = self.poller.remove(tap.as_raw_fd());
        }
        self.pending = None;
    }

    fn handle(&mut self, event: u32, _ready: u32) -> Result<(), DeviceFault> {
        let fired = |limiter: &mut Option<RateLimiter>| {
            if let Some(limiter) = limiter {
                limiter.fired();
            }
        };
        match event {
            1 => self.send(),
            EVENT_SEND_LIMIT => {
                fired(&mut self.send_limiter);
                self.send()
            }
            EVENT_RECEIVE_LIMIT => {
                fired(&mut self.receive_limiter);
                self.receive()
            }
            EVENT_TAP => {
                self.tap_readable = true;
                self.receive()
            }
            _ => self.receive(),
        }
    }
}

#[cfg(test)]
mod tests;
