//! The interrupts of one virtio function, and the device status bits that go with them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pci::{MsixTable, NO_VECTOR};

/// Shared by the transport, which programs it, and the device, which raises interrupts.
pub struct VirtioInterrupt {
    msix: Mutex<MsixTable>,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    needs_reset: AtomicBool,
    generation: AtomicU8,
}

impl VirtioInterrupt {
    /// For a device with `queues` queues.
    pub fn new(msix: MsixTable, queues: usize) -> Self {
        Self {
            msix: Mutex::new(msix),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            needs_reset: AtomicBool::new(false),
            generation: AtomicU8::new(0),
        }
    }

    /// The vector table.
    pub fn msix(&self) -> MutexGuard<'_, MsixTable> {
        self.msix.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queue `index` has used buffers.
    pub fn raise_queue(&self, index: usize) {
        if let Some(vector) = self.queue_vectors.get(index) {
            self.raise(vector.load(Ordering::Acquire));
        }
    }

    /// The device configuration changed.
    pub fn raise_config(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(self.config_vector.load(Ordering::Acquire));
    }

    /// Tells the driver that the device is out of service (virtio 1.2 §2.1.2).
    pub fn raise_needs_reset(&self) {
        self.needs_reset.store(true, Ordering::Release);
        self.raise_config();
    }

    fn raise(&self, vector: u16) {
        if vector != NO_VECTOR {
            self.msix().raise(vector);
        }
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Acquire)
    }

    pub(super) fn queue_vector(&self, index: usize) -> u16 {
        self.queue_vectors
            .get(index)
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    /// A vector that does not exist reads back as "no vector" (virtio 1.2 §4.1.5.1.2.1).
    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config_vector
            .store(self.checked(vector), Ordering::Release);
    }

    pub(super) fn set_queue_vector(&self, index: usize, vector: u16) {
        if let Some(slot) = self.queue_vectors.get(index) {
            slot.store(self.checked(vector), Ordering::Release);
        }
    }

    fn checked(&self, vector: u16) -> u16 {
        if vector < self.msix().count() {
            vector
        } else {
            NO_VECTOR
        }
    }

    pub(super) fn reset(&self) {
        self.needs_reset.store(false, Ordering::Release);
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Release);
        }
    }
}
