//! The device: three queues around the [`Muxer`].

use super::muxer::{EVENT_LISTENER, Muxer};
use super::packet::{HEADER_BYTES, Header};
use crate::virtio::{Activation, DeviceFault, QueueError, VirtQueue, VirtioDevice, copy_config};

const RECEIVE: usize = 0;
const SEND: usize = 1;
const QUEUE_SIZES: &[u16] = &[256, 256, 16];
/// Packets per direction and turn of the event loop.
const BUDGET: usize = 64;
/// Most payload of a packet to the guest.
const PAYLOAD_MAX_BYTES: usize = 64 * 1024;

struct Active {
    receive: VirtQueue,
    send: VirtQueue,
}

/// See the module.
pub struct Vsock {
    guest_cid: u32,
    muxer: Muxer,
    active: Option<Active>,
    buffer: Vec<u8>,
}

impl Vsock {
    /// An idle device.
    pub fn new(guest_cid: u32, muxer: Muxer) -> Self {
        Self {
            guest_cid,
            muxer,
            active: None,
            buffer: vec![0; PAYLOAD_MAX_BYTES],
        }
    }

    /// Takes packets of the guest.
    fn take(&mut self) -> Result<(), DeviceFault> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let muxer = &mut self.muxer;
        let mut payload = Vec::new();
        active
            .send
            .drain(BUDGET, |memory, chain| {
                let mut bytes = [0; HEADER_BYTES];
                if !chain.readable.copy_out(memory, 0, &mut bytes)? {
                    return Err(QueueError::TooShort("vsock header"));
                }
                let header = Header::parse(&bytes);
                let length = header.length as usize;
                if length > chain.readable.len() - HEADER_BYTES {
                    return Err(QueueError::TooShort("vsock payload"));
                }
                if length > Muxer::payload_limit() {
                    muxer.packet(&header, None);
                    return Ok(0);
                }
                payload.resize(length, 0);
                chain
                    .readable
                    .copy_out(memory, HEADER_BYTES, &mut payload)?;
                muxer.packet(&header, Some(&payload));
                Ok(0)
            })
            .map_err(DeviceFault::queue(SEND))
    }

    /// Gives the guest packets as long as there are any and it has buffers.
    fn give(&mut self) -> Result<(), DeviceFault> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let failed = DeviceFault::queue(RECEIVE);
        let mut done = 0;
        while self.muxer.has_pending() {
            if done == BUDGET {
                active.receive.kick_later();
                break;
            }
            let Some(chain) = active.receive.pop().map_err(&failed)? else {
                if active.receive.arm().map_err(&failed)? {
                    continue;
                }
                break;
            };
            let Some(room) = chain.writable.len().checked_sub(HEADER_BYTES) else {
                return Err(failed(QueueError::TooShort("vsock packet")));
            };
            let room = room.min(self.buffer.len());
            let Some(header) = self.muxer.next_packet(&mut self.buffer[..room]) else {
                active.receive.unpop();
                break;
            };
            let length = header.length as usize;
            let memory = active.receive.memory();
            chain
                .writable
                .copy_in(memory, 0, &header.to_bytes())
                .map_err(&failed)?;
            chain
                .writable
                .copy_in(memory, HEADER_BYTES, &self.buffer[..length])
                .map_err(&failed)?;
            let written = (HEADER_BYTES + length) as u32;
            active
                .receive
                .complete(chain.head, written)
                .map_err(&failed)?;
            done += 1;
        }
        if done > 0 {
            active.receive.notify().map_err(&failed)?;
        }
        Ok(())
    }
}

impl VirtioDevice for Vsock {
    fn name(&self) -> &str {
        "vsock"
    }

    fn device_type(&self) -> u16 {
        19
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&u64::from(self.guest_cid).to_le_bytes(), offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), DeviceFault> {
        let mut take = |index: usize| {
            let queue = activation.queues.get_mut(index).and_then(Option::take);
            queue.ok_or(DeviceFault::MissingQueue(index))
        };
        self.active = Some(Active {
            receive: take(RECEIVE)?,
            send: take(SEND)?,
        });
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
        self.muxer.reset();
    }

    fn handle(&mut self, event: u32, ready: u32) -> Result<(), DeviceFault> {
        match event {
            0 | 2 => {}
            1 => self.take()?,
            EVENT_LISTENER => self.muxer.accept(self.active.is_some()),
            socket => self.muxer.socket_ready(socket, ready),
        }
        self.give()
    }
}

#[cfg(test)]
mod tests;
