//! The root bus: finds the device behind an ECAM or BAR address.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::config::{ConfigSpace, HeaderIds};
use crate::layout::{ECAM_SIZE, ECAM_START, PCI_MMIO_END, PCI_MMIO_START};

/// Slots of a bus; slot 0 is the host bridge.
const SLOTS: usize = 32;
const SLOT_SHIFT: u32 = 15;
const FUNCTION_MASK: u64 = 7 << 12;
const REGISTER_MASK: u64 = 0xfff;
/// BAR address of a device whose memory decoding is off.
pub const BAR_OFF: u64 = u64::MAX;

/// A device cannot be placed.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// All slots are taken.
    #[error("The PCI bus is full: {max} devices are possible", max = SLOTS - 1)]
    Full,
    /// The BAR window is used up.
    #[error("No room for a BAR of {0} bytes")]
    NoRoom(u32),
}

/// A function on the bus.
pub trait PciDevice: Send + Sync {
    /// Reads configuration space.
    fn read_config(&self, offset: usize, data: &mut [u8]);
    /// Writes configuration space.
    fn write_config(&self, offset: usize, data: &[u8]);
    /// Reads from BAR 0.
    fn read_bar(&self, offset: u64, data: &mut [u8]);
    /// Writes to BAR 0.
    fn write_bar(&self, offset: u64, data: &[u8]);
}

/// Where a device's BAR lies now; shared so that address decoding takes no lock.
#[derive(Debug, Clone)]
pub struct BarWindow {
    address: Arc<AtomicU64>,
    size: u64,
}

impl BarWindow {
    /// Moves the window; `None` switches decoding off.
    pub fn set(&self, address: Option<u64>) {
        self.address
            .store(address.unwrap_or(BAR_OFF), Ordering::Release);
    }

    fn offset(&self, address: u64) -> Option<u64> {
        let start = self.address.load(Ordering::Acquire);
        let offset = address.checked_sub(start)?;
        (start != BAR_OFF && offset < self.size).then_some(offset)
    }
}

/// The place that a device is given before it is made.
#[derive(Debug, Clone)]
pub struct Place {
    /// Initial address of BAR 0.
    pub bar_address: u32,
    /// Follows the BAR.
    pub window: BarWindow,
}

struct Slot {
    device: Arc<dyn PciDevice>,
    window: BarWindow,
}

/// The bus.
pub struct PciRoot {
    bridge: ConfigSpace,
    slots: Vec<Slot>,
    next_bar: u64,
}

impl Default for PciRoot {
    fn default() -> Self {
        // An Intel host bridge id that Linux has no quirks for.
        let bridge = ConfigSpace::new(HeaderIds {
            vendor: 0x8086,
            device: 0x0d57,
            subsystem_vendor: 0,
            subsystem: 0,
            revision: 0,
            class: 0x06_0000,
        });
        Self {
            bridge,
            slots: Vec::new(),
            next_bar: PCI_MMIO_START,
        }
    }
}

impl PciRoot {
    /// Gives out a place with a BAR of `size` bytes (a power of two).
    pub fn reserve(&mut self, size: u32) -> Result<Place, RootError> {
        let start = self.next_bar.next_multiple_of(u64::from(size));
        let end = start + u64::from(size);
        if end > PCI_MMIO_END {
            return Err(RootError::NoRoom(size));
        }
        self.next_bar = end;
        let window = BarWindow {
            address: Arc::new(AtomicU64::new(BAR_OFF)),
            size: u64::from(size),
        };
        Ok(Place {
            bar_address: start as u32,
            window,
        })
    }

    /// Puts a device into the next slot.
    pub fn add(&mut self, place: Place, device: Arc<dyn PciDevice>) -> Result<(), RootError> {
        if self.slots.len() + 1 >= SLOTS {
            return Err(RootError::Full);
        }
        self.slots.push(Slot {
            device,
            window: place.window,
        });
        Ok(())
    }

    /// Whether `address` belongs to ECAM or to the BAR window.
    pub fn claims(&self, address: u64) -> bool {
        (PCI_MMIO_START..ECAM_START + ECAM_SIZE).contains(&address)
    }

    /// Handles a read; what nobody claims reads as ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((slot, register)) = ecam(address) {
            match slot.checked_sub(1) {
                None => self.bridge.read(register, data),
                Some(index) => {
                    if let Some(slot) = self.slots.get(index) {
                        slot.device.read_config(register, data);
                    }
                }
            }
        } else if let Some((device, offset)) = self.by_bar(address) {
            device.read_bar(offset, data);
        }
    }

    /// Handles a write; what nobody claims is dropped.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((slot, register)) = ecam(address) {
            if let Some(slot) = slot.checked_sub(1).and_then(|index| self.slots.get(index)) {
                slot.device.write_config(register, data);
            }
        } else if let Some((device, offset)) = self.by_bar(address) {
            device.write_bar(offset, data);
        }
    }

    fn by_bar(&self, address: u64) -> Option<(&dyn PciDevice, u64)> {
        self.slots
            .iter()
            .find_map(|slot| Some((slot.device.as_ref(), slot.window.offset(address)?)))
    }
}

/// (slot, register) of an ECAM address of bus 0, function 0.
fn ecam(address: u64) -> Option<(usize, usize)> {
    let offset = address
        .checked_sub(ECAM_START)
        .filter(|offset| *offset < ECAM_SIZE)?;
    if offset & FUNCTION_MASK != 0 {
        return Some((SLOTS, 0));
    }
    Some((
        (offset >> SLOT_SHIFT) as usize,
        (offset & REGISTER_MASK) as usize,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl PciDevice for Recorder {
        fn read_config(&self, offset: usize, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write_config(&self, offset: usize, data: &[u8]) {
            self.0
                .lock()
                .unwrap()
                .push(format!("config {offset:#x} {data:?}"));
        }
        fn read_bar(&self, _offset: u64, data: &mut [u8]) {
            data.fill(7);
        }
        fn write_bar(&self, offset: u64, data: &[u8]) {
            self.0
                .lock()
                .unwrap()
                .push(format!("bar {offset:#x} {data:?}"));
        }
    }

    #[test]
    fn addresses_find_their_device() {
        let mut root = PciRoot::default();
        let place = root.reserve(0x1000).unwrap();
        let window = place.window.clone();
        let device = Arc::new(Recorder::default());
        root.add(place, device.clone()).unwrap();
        let mut data = [0; 2];
        root.read(ECAM_START, &mut data);
        assert_eq!(data, [0x86, 0x80]);
        root.read(ECAM_START + (1 << 15) + 0x10, &mut data);
        assert_eq!(data, [0x10, 0x10]);
        for absent in [
            ECAM_START + (1 << 12),
            ECAM_START + (2 << 15),
            ECAM_START + ECAM_SIZE - 2,
            PCI_MMIO_START,
        ] {
            root.read(absent, &mut data);
            assert_eq!(data, [0xff, 0xff]);
            root.write(absent, &[1]);
        }
        window.set(Some(PCI_MMIO_START + 0x2000));
        root.read(PCI_MMIO_START + 0x2fff, &mut data);
        assert_eq!(data, [7, 7]);
        root.write(PCI_MMIO_START + 0x2004, &[9]);
        root.write(ECAM_START + (1 << 15) + 4, &[2, 0]);
        assert_eq!(
            *device.0.lock().unwrap(),
            vec!["bar 0x4 [9]", "config 0x4 [2, 0]"]
        );
    }

    #[test]
    fn the_bus_holds_31_devices() {
        let mut root = PciRoot::default();
        for _ in 0..31 {
            let place = root.reserve(0x1000).unwrap();
            root.add(place, Arc::new(Recorder::default())).unwrap();
        }
        let place = root.reserve(0x1000).unwrap();
        assert!(matches!(
            root.add(place, Arc::new(Recorder::default())),
            Err(RootError::Full)
        ));
    }
}
