//! MSI-X (PCI 3.0 §6.8.2): vector table, pending bits, and the irqfd behind each vector.

use std::sync::Arc;

use super::vector::Vector;
use crate::interrupts::{InterruptController, InterruptError, MsiMessage};

/// Bytes of one table entry.
pub const MSIX_ENTRY_BYTES: usize = 16;
/// "No vector" in a virtio vector register (virtio 1.2 §4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;
const VECTOR_CONTROL: usize = 12;
const VECTOR_MASKED: u32 = 1;
/// Message control: function mask and enable.
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
/// See [`CONTROL_FUNCTION_MASK`].
pub const CONTROL_ENABLE: u16 = 1 << 15;

/// The vectors of one function.
///
/// A masked vector is not connected: what raises it, the VMM or a device that is passed
/// through, only marks it pending.
pub struct MsixTable {
    entries: Vec<u8>,
    vectors: Vec<Vector>,
    control: u16,
}

impl MsixTable {
    /// `count` vectors (1 to 2048), all masked.
    pub fn new(
        count: u16,
        controller: Arc<dyn InterruptController>,
    ) -> Result<Self, InterruptError> {
        let mut entries = vec![0; usize::from(count) * MSIX_ENTRY_BYTES];
        for entry in entries.chunks_mut(MSIX_ENTRY_BYTES) {
            entry[VECTOR_CONTROL] = VECTOR_MASKED as u8;
        }
        let vectors = (0..count)
            .map(|_| Vector::new(Arc::clone(&controller)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            entries,
            vectors,
            control: 0,
        })
    }

    /// The vectors in order.
    pub fn vectors(&self) -> &[Vector] {
        &self.vectors
    }

    /// Number of vectors.
    pub fn count(&self) -> u16 {
        self.vectors.len() as u16
    }

    /// The guest wrote the message control register.
    pub fn set_control(&mut self, control: u16) -> Result<(), InterruptError> {
        let before = self.control;
        self.control = control;
        if before == control {
            return Ok(());
        }
        for index in 0..self.vectors.len() {
            self.update(index)?;
        }
        Ok(())
    }

    /// Reads the vector table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let position = usize::try_from(offset)
                .ok()
                .and_then(|o| o.checked_add(index));
            *byte = position
                .and_then(|p| self.entries.get(p))
                .copied()
                .unwrap_or(0xff);
        }
    }

    /// Writes the vector table.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) -> Result<(), InterruptError> {
        let Ok(offset) = usize::try_from(offset) else {
            return Ok(());
        };
        let Some(end) = offset
            .checked_add(data.len())
            .filter(|end| *end <= self.entries.len())
        else {
            return Ok(());
        };
        if data.is_empty() {
            return Ok(());
        }
        self.entries[offset..end].copy_from_slice(data);
        for index in offset / MSIX_ENTRY_BYTES..=(end - 1) / MSIX_ENTRY_BYTES {
            self.update(index)?;
        }
        Ok(())
    }

    /// Reads the pending bit array.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let first = offset.saturating_add(index as u64).saturating_mul(8);
            *byte = (0..8u64).fold(0, |bits, bit| {
                let vector = usize::try_from(first.saturating_add(bit)).ok();
                let pending = vector
                    .and_then(|v| self.vectors.get(v))
                    .is_some_and(Vector::is_pending);
                bits | u8::from(pending) << bit
            });
        }
    }

    /// Raises a vector, or marks it pending while it is masked.
    pub fn raise(&self, vector: u16) {
        if let Some(vector) = self.vectors.get(usize::from(vector)) {
            vector.raise();
        }
    }

    fn word(&self, index: usize, offset: usize) -> u32 {
        let start = index * MSIX_ENTRY_BYTES + offset;
        self.entries
            .get(start..start + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(u32::MAX, u32::from_le_bytes)
    }

    fn is_masked(&self, index: usize) -> bool {
        self.control & CONTROL_ENABLE == 0
            || self.control & CONTROL_FUNCTION_MASK != 0
            || self.word(index, VECTOR_CONTROL) & VECTOR_MASKED != 0
    }

    /// Brings route and irqfd of one vector in line with the registers.
    fn update(&mut self, index: usize) -> Result<(), InterruptError> {
        let masked = self.is_masked(index);
        let message = MsiMessage {
            address: u64::from(self.word(index, 0)) | u64::from(self.word(index, 4)) << 32,
            data: self.word(index, 8),
        };
        match self.vectors.get_mut(index) {
            None => Ok(()),
            Some(vector) if masked => vector.disconnect(),
            Some(vector) => vector.connect(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupts::fake::FakeController;

    fn program(table: &mut MsixTable, vector: u64, address: u64, data: u32) {
        let base = vector * MSIX_ENTRY_BYTES as u64;
        table.write_table(base, &address.to_le_bytes()).unwrap();
        table.write_table(base + 8, &data.to_le_bytes()).unwrap();
        table.write_table(base + 12, &0u32.to_le_bytes()).unwrap();
    }

    #[test]
    fn a_masked_vector_is_pending_until_it_is_unmasked() {
        let controller = Arc::new(FakeController::default());
        let mut table = MsixTable::new(2, controller.clone()).unwrap();
        table.set_control(CONTROL_ENABLE).unwrap();
        table.raise(1);
        let mut pending = [0];
        table.read_pending(0, &mut pending);
        assert_eq!(pending, [0b10]);
        program(&mut table, 1, 0xfee0_0000, 0x41);
        table.read_pending(0, &mut pending);
        assert_eq!(pending, [0]);
        assert_eq!(controller.events.lock().unwrap()[0].1.read().unwrap(), 1);
        let routes = controller.routes.lock().unwrap();
        assert_eq!(
            routes.last(),
            Some(&(
                2,
                MsiMessage {
                    address: 0xfee0_0000,
                    data: 0x41
                }
            ))
        );
    }

    #[test]
    fn masked_vectors_cost_no_routing_updates() {
        let controller = Arc::new(FakeController::default());
        let mut table = MsixTable::new(4, controller.clone()).unwrap();
        for vector in 0..4 {
            program(&mut table, vector, 0xfee0_0000, 1);
        }
        assert!(controller.routes.lock().unwrap().is_empty());
        table
            .set_control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK)
            .unwrap();
        assert!(controller.routes.lock().unwrap().is_empty());
        table.set_control(CONTROL_ENABLE).unwrap();
        assert_eq!(controller.routes.lock().unwrap().len(), 4);
    }

    #[test]
    fn garbage_is_survived() {
        let mut table = MsixTable::new(1, Arc::new(FakeController::default())).unwrap();
        table.set_control(0xffff).unwrap();
        table.write_table(u64::MAX, &[0; 8]).unwrap();
        table.write_table(12, &[0; 8]).unwrap();
        table.write_table(3, &[]).unwrap();
        let mut data = [0; 8];
        table.read_table(u64::MAX - 2, &mut data);
        assert_eq!(data, [0xff; 8]);
        table.read_pending(u64::MAX, &mut data);
        assert_eq!(data, [0; 8]);
        table.raise(NO_VECTOR);
        table.raise(1);
    }
}
