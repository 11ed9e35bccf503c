//! Queues as devices use them: chains that were walked and checked before anything is done.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

use super::interrupt::VirtioInterrupt;
use crate::memory::GuestMemory;
use crate::rate::RateLimiter;

/// Most buffers in a chain: what one readv or writev takes (IOV_MAX).
pub const MAX_SEGMENTS: usize = 1024;

/// The driver broke the rules of a queue (virtio 1.2 §2.7).
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Rings out of guest memory, bad indices.
    #[error("The rings are invalid")]
    Ring(#[source] virtio_queue::Error),
    /// The queue's addresses do not lie in guest memory.
    #[error("The ring addresses are outside guest memory")]
    Addresses,
    /// A chain that loops, is cut off, or points at a descriptor that does not exist.
    #[error("Descriptor chain {0} is malformed")]
    Chain(u16),
    /// A chain with more than [`MAX_SEGMENTS`] buffers.
    #[error("Descriptor chain {0} has more than {MAX_SEGMENTS} buffers")]
    TooLong(u16),
    /// A readable buffer after a writable one.
    #[error("Descriptor chain {0} has a readable buffer behind a writable one")]
    Order(u16),
    /// A buffer that is not in guest memory.
    #[error(
        "Descriptor chain {head} has a buffer outside guest memory: {address:#x}, {length} bytes"
    )]
    Memory {
        /// First descriptor.
        head: u16,
        /// Its address.
        address: u64,
        /// Its length.
        length: u32,
    },
    /// A chain without the buffers that the request needs.
    #[error("Descriptor chain is too short for a {0}")]
    TooShort(&'static str),
    /// Guest memory could not be accessed.
    #[error("Failed to access guest memory")]
    Access(#[source] vm_memory::GuestMemoryError),
}

/// The readable or the writable half of a chain, all of it inside guest memory.
#[derive(Debug, Default, Clone)]
pub struct Buffers {
    segments: Vec<(GuestAddress, usize)>,
    total: usize,
}

impl Buffers {
    /// Bytes in all segments.
    pub fn len(&self) -> usize {
        self.total
    }

    /// No bytes at all.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    fn push(&mut self, address: GuestAddress, length: usize) {
        self.segments.push((address, length));
        self.total += length;
    }

    /// (address, length) pieces of the bytes from `offset` on, at most `length` of them.
    fn pieces(&self, offset: usize, length: usize) -> impl Iterator<Item = (GuestAddress, usize)> {
        let (mut skip, mut left) = (offset, length);
        self.segments.iter().filter_map(move |(address, size)| {
            let start = skip.min(*size);
            skip -= start;
            let count = (size - start).min(left);
            left -= count;
            (count > 0).then(|| (GuestAddress(address.0 + start as u64), count))
        })
    }

    /// The segments: guest address and bytes.
    pub fn ranges(&self) -> impl Iterator<Item = (GuestAddress, usize)> + '_ {
        self.segments.iter().copied()
    }

    /// Copies `data.len()` bytes from `offset` on out of guest memory; false when there are
    /// not that many.
    pub fn copy_out(
        &self,
        memory: &GuestMemory,
        offset: usize,
        data: &mut [u8],
    ) -> Result<bool, QueueError> {
        let mut done = 0;
        for (address, count) in self.pieces(offset, data.len()) {
            memory
                .read_slice(&mut data[done..done + count], address)
                .map_err(QueueError::Access)?;
            done += count;
        }
        Ok(done == data.len())
    }

    /// Copies `data` into guest memory from `offset` on; returns how many bytes fitted.
    pub fn copy_in(
        &self,
        memory: &GuestMemory,
        offset: usize,
        data: &[u8],
    ) -> Result<usize, QueueError> {
        let mut done = 0;
        for (address, count) in self.pieces(offset, data.len()) {
            memory
                .write_slice(&data[done..done + count], address)
                .map_err(QueueError::Access)?;
            done += count;
        }
        Ok(done)
    }

    /// Host addresses of the bytes from `offset` on, at most `length` of them, for a
    /// vectored system call. They stay valid as long as guest memory is mapped; the guest
    /// may change the bytes at any time.
    pub fn io_vectors(
        &self,
        memory: &GuestMemory,
        offset: usize,
        length: usize,
    ) -> Result<Vec<libc::iovec>, QueueError> {
        let mut vectors = Vec::with_capacity(self.segments.len());
        for (address, count) in self.pieces(offset, length) {
            let slice = memory
                .get_slice(address, count)
                .map_err(QueueError::Access)?;
            vectors.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: count,
            });
        }
        Ok(vectors)
    }
}

/// Guest addresses of a queue's rings, and how far they were served.
#[derive(Debug, Clone, Copy)]
pub struct Rings {
    /// Entries.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
    /// Index of the used ring.
    pub used_index: u16,
}

/// One request of the driver.
#[derive(Debug)]
pub struct Chain {
    /// Head descriptor, to give back.
    pub head: u16,
    /// What the driver wrote.
    pub readable: Buffers,
    /// What the device may write.
    pub writable: Buffers,
}

/// A queue that the driver has switched on.
pub struct VirtQueue {
    queue: Queue,
    index: usize,
    memory: GuestMemory,
    interrupt: Arc<VirtioInterrupt>,
    kick: Option<EventFd>,
}

impl VirtQueue {
    /// Takes over `queue` after checking its rings. `kick` is its doorbell.
    pub fn new(
        queue: Queue,
        index: usize,
        memory: GuestMemory,
        interrupt: Arc<VirtioInterrupt>,
        kick: Option<EventFd>,
    ) -> Result<Self, QueueError> {
        if !queue.is_valid(&memory) {
            return Err(QueueError::Addresses);
        }
        Ok(Self {
            queue,
            index,
            memory,
            interrupt,
            kick,
        })
    }

    /// The next request, if there is one.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        let mut iterator = self.queue.iter(&self.memory).map_err(QueueError::Ring)?;
        let Some(descriptors) = iterator.next() else {
            return Ok(None);
        };
        let head = descriptors.head_index();
        let mut chain = Chain {
            head,
            readable: Buffers::default(),
            writable: Buffers::default(),
        };
        // Without any descriptor (head out of range, bad indirect table) the chain is broken
        // too; one that stops although its last descriptor has a successor loops or leads
        // out of the table.
        let mut complete = false;
        for (count, descriptor) in descriptors.enumerate() {
            if count == MAX_SEGMENTS {
                return Err(QueueError::TooLong(head));
            }
            complete = !descriptor.has_next();
            let (address, length) = (descriptor.addr(), descriptor.len());
            if length == 0 {
                continue;
            }
            if self.memory.get_slice(address, length as usize).is_err() {
                return Err(QueueError::Memory {
                    head,
                    address: address.0,
                    length,
                });
            }
            if descriptor.is_write_only() {
                chain.writable.push(address, length as usize);
            } else if chain.writable.is_empty() {
                chain.readable.push(address, length as usize);
            } else {
                return Err(QueueError::Order(head));
            }
        }
        if complete {
            Ok(Some(chain))
        } else {
            Err(QueueError::Chain(head))
        }
    }

    /// Puts back the request that [`VirtQueue::pop`] gave last.
    pub fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a request back with `written` bytes written.
    pub fn complete(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.queue
            .add_used(&self.memory, head, written)
            .map_err(QueueError::Ring)
    }

    /// Interrupts the driver if it wants to know of the requests given back.
    pub fn notify(&mut self) -> Result<(), QueueError> {
        if self
            .queue
            .needs_notification(&self.memory)
            .map_err(QueueError::Ring)?
        {
            self.interrupt.raise_queue(self.index);
        }
        Ok(())
    }

    /// Asks for doorbells again; true when requests came in the meantime.
    pub fn arm(&mut self) -> Result<bool, QueueError> {
        self.queue
            .enable_notification(&self.memory)
            .map_err(QueueError::Ring)
    }

    /// Asks the driver not to ring while requests are being worked on.
    pub fn disarm(&mut self) -> Result<(), QueueError> {
        self.queue
            .disable_notification(&self.memory)
            .map_err(QueueError::Ring)
    }

    /// Rings the own doorbell, to go on after other devices had their turn.
    pub fn kick_later(&self) {
        if let Some(kick) = &self.kick {
            // EAGAIN: it is ringing already.
            let _ = kick.write(1);
        }
    }

    /// Works on requests until there are none or `budget` of them are done; then the rest is
    /// left to a later turn. `work` returns the bytes it wrote.
    pub fn drain(
        &mut self,
        budget: usize,
        work: impl FnMut(&GuestMemory, &Chain) -> Result<u32, QueueError>,
    ) -> Result<(), QueueError> {
        self.drain_limited(budget, None, work)
    }

    /// [`VirtQueue::drain`] as far as the limits go; the rest is left to a turn after the
    /// timer of the limiter.
    pub fn drain_limited(
        &mut self,
        budget: usize,
        mut limiter: Option<&mut RateLimiter>,
        mut work: impl FnMut(&GuestMemory, &Chain) -> Result<u32, QueueError>,
    ) -> Result<(), QueueError> {
        self.disarm()?;
        let mut done = 0;
        loop {
            let mut waits = false;
            while done < budget {
                waits = limiter.as_mut().is_some_and(|limiter| !limiter.admits());
                if waits {
                    break;
                }
                let Some(chain) = self.pop()? else { break };
                let written = work(&self.memory, &chain)?;
                self.complete(chain.head, written)?;
                done += 1;
                if let Some(limiter) = &mut limiter {
                    limiter.spend((chain.readable.len() + chain.writable.len()) as u64);
                }
            }
            if waits {
                break;
            }
            if done >= budget {
                self.kick_later();
                break;
            }
            if !self.arm()? {
                break;
            }
        }
        if done > 0 {
            self.notify()?;
        }
        Ok(())
    }

    /// Its doorbell.
    pub fn doorbell(&self) -> Option<&EventFd> {
        self.kick.as_ref()
    }

    /// Where its rings are, for another process that serves it.
    pub fn rings(&self) -> Rings {
        // The rings were checked when the queue was made: reading an index cannot fail.
        let used = self.queue.used_idx(&self.memory, Ordering::Acquire);
        Rings {
            size: self.queue.size(),
            descriptors: self.queue.desc_table(),
            available: self.queue.avail_ring(),
            used: self.queue.used_ring(),
            used_index: used.map_or(0, |index| index.0),
        }
    }

    /// Takes over from another process, which answered requests in their order: those that it
    /// left are the next ones.
    pub fn resume_from_used(&mut self) -> Result<(), QueueError> {
        let used = self
            .queue
            .used_idx(&self.memory, Ordering::Acquire)
            .map_err(QueueError::Ring)?;
        self.queue.set_next_avail(used.0);
        self.queue.set_next_used(used.0);
        Ok(())
    }

    /// Guest memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }
}

impl std::fmt::Debug for VirtQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtQueue")
            .field("index", &self.index)
            .field("kick", &self.kick.as_ref().map(AsRawFd::as_raw_fd))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
