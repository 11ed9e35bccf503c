//! A driver for tests: rings laid out by hand in guest memory.

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::{Activation, VirtQueue, VirtioInterrupt};
pub(crate) use crate::interrupts::fake::FakeController;
use crate::memory::GuestMemory;
use crate::pci::MsixTable;

pub const QUEUE_SIZE: u16 = 16;
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
/// Where test buffers may lie; rings are below.
pub const BUFFERS: u64 = 0x10_0000;

pub fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), 0x40_0000)]).unwrap()
}

pub fn interrupt(queues: usize) -> Arc<VirtioInterrupt> {
    let msix = MsixTable::new(queues as u16 + 1, Arc::new(FakeController::default())).unwrap();
    Arc::new(VirtioInterrupt::new(msix, queues))
}

/// The driver's side of one queue.
pub struct Driver {
    pub memory: GuestMemory,
    base: u64,
    next_descriptor: u16,
    available: u16,
    seen: u16,
}

impl Driver {
    /// Rings of queue `index`.
    pub fn new(memory: &GuestMemory, index: u64) -> Self {
        let base = 0x1_0000 * (index + 1);
        Self {
            memory: memory.clone(),
            base,
            next_descriptor: 0,
            available: 0,
            seen: 0,
        }
    }

    pub fn rings(&self) -> [u64; 3] {
        [self.base, self.base + 0x1000, self.base + 0x2000]
    }

    pub fn raw_queue(&self) -> Queue {
        let mut queue = Queue::new(QUEUE_SIZE).unwrap();
        let [descriptors, driver, device] = self.rings();
        queue
            .try_set_desc_table_address(GuestAddress(descriptors))
            .unwrap();
        queue
            .try_set_avail_ring_address(GuestAddress(driver))
            .unwrap();
        queue
            .try_set_used_ring_address(GuestAddress(device))
            .unwrap();
        queue.set_ready(true);
        queue
    }

    pub fn queue(&self, index: usize) -> VirtQueue {
        VirtQueue::new(
            self.raw_queue(),
            index,
            self.memory.clone(),
            interrupt(3),
            None,
        )
        .unwrap()
    }

    pub fn descriptor(
        &self,
        table: u64,
        index: u16,
        address: u64,
        length: u32,
        flags: u16,
        next: u16,
    ) {
        let at = table + 16 * u64::from(index);
        self.memory.write_obj(address, GuestAddress(at)).unwrap();
        self.memory.write_obj(length, GuestAddress(at + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        self.memory.write_obj(next, GuestAddress(at + 14)).unwrap();
    }

    /// Puts `head` into the available ring.
    pub fn offer(&mut self, head: u16) {
        let ring = self.base + 0x1000;
        let slot = ring + 4 + 2 * u64::from(self.available % QUEUE_SIZE);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    pub fn set_available(&self, index: u16) {
        self.memory
            .write_obj(index, GuestAddress(self.base + 0x1002))
            .unwrap();
    }

    /// Offers a chain of (address, length, device writes).
    pub fn chain(&mut self, parts: &[(u64, u32, bool)]) -> u16 {
        let head = self.next_descriptor % QUEUE_SIZE;
        for (position, (address, length, write)) in parts.iter().enumerate() {
            let index = self.next_descriptor % QUEUE_SIZE;
            self.next_descriptor = self.next_descriptor.wrapping_add(1);
            let last = position + 1 == parts.len();
            let flags = if *write { WRITE } else { 0 } | if last { 0 } else { NEXT };
            let next = self.next_descriptor % QUEUE_SIZE;
            self.descriptor(self.base, index, *address, *length, flags, next);
        }
        self.offer(head);
        head
    }

    pub fn put(&self, address: u64, data: &[u8]) {
        self.memory
            .write_slice(data, GuestAddress(address))
            .unwrap();
    }

    pub fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory
            .read_slice(&mut data, GuestAddress(address))
            .unwrap();
        data
    }

    /// The requests given back since the last call: (head, bytes written).
    pub fn used(&mut self) -> Vec<(u32, u32)> {
        let ring = self.base + 0x2000;
        let index: u16 = self.memory.read_obj(GuestAddress(ring + 2)).unwrap();
        let mut used = Vec::new();
        while self.seen != index {
            let slot = ring + 4 + 8 * u64::from(self.seen % QUEUE_SIZE);
            let element: [u32; 2] = self.memory.read_obj(GuestAddress(slot)).unwrap();
            used.push((element[0], element[1]));
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }
}

/// What a device with these queues gets.
pub fn activation(drivers: &[&Driver], features: u64) -> Activation {
    let queues = drivers
        .iter()
        .enumerate()
        .map(|(index, driver)| Some(driver.queue(index)))
        .collect();
    Activation {
        memory: drivers[0].memory.clone(),
        features,
        queues,
        interrupt: interrupt(drivers.len()),
    }
}
