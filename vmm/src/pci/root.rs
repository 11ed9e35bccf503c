//! The root bus: finds the device behind an ECAM or BAR address.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::config::{ConfigSpace, HeaderIds};
use crate::layout::{ECAM_SIZE, ECAM_START, PCI_MMIO_END, PCI_MMIO_START};
use crate::memory::PAGE_BYTES;

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
    /// The window for such BARs is used up.
    #[error("No room for a BAR of {bytes} bytes {space}")]
    NoRoom {
        /// Size of the BAR.
        bytes: u64,
        /// Where it was to lie.
        space: BarSpace,
    },
}

/// Which window a BAR is placed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarSpace {
    /// Below 4 GiB.
    Low,
    /// Above guest RAM; only for 64-bit BARs.
    High,
}

impl std::fmt::Display for BarSpace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Low => "below 4 GiB",
            Self::High => "between guest RAM and the end of physical addresses",
        })
    }
}

/// A function on the bus.
pub trait PciDevice: Send + Sync {
    /// Reads configuration space.
    fn read_config(&self, offset: usize, data: &mut [u8]);
    /// Writes configuration space.
    fn write_config(&self, offset: usize, data: &[u8]);
    /// Reads from a BAR.
    fn read_bar(&self, bar: usize, offset: u64, data: &mut [u8]);
    /// Writes to a BAR.
    fn write_bar(&self, bar: usize, offset: u64, data: &[u8]);
    /// What there is to tell beyond configuration space, for people.
    fn describe(&self) -> String;
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

/// The place that a BAR is given before its device is made.
#[derive(Debug, Clone)]
pub struct Place {
    /// Initial address of the BAR.
    pub address: u64,
    /// Follows the BAR.
    pub window: BarWindow,
}

struct Slot {
    device: Arc<dyn PciDevice>,
    /// By BAR.
    windows: Vec<(usize, BarWindow)>,
}

/// Addresses that BARs are taken from.
#[derive(Debug, Clone)]
struct Room {
    start: u64,
    next: u64,
    end: u64,
}

impl Room {
    fn new(start: u64, end: u64) -> Self {
        Self {
            start,
            next: start,
            end,
        }
    }

    fn take(&mut self, bytes: u64) -> Option<u64> {
        // No two BARs share a page: each page goes to one device.
        let start = self.next.checked_next_multiple_of(bytes.max(PAGE_BYTES))?;
        let end = start.checked_add(bytes).filter(|end| *end <= self.end)?;
        self.next = end;
        Some(start)
    }
}

/// The bus.
pub struct PciRoot {
    bridge: ConfigSpace,
    slots: Vec<Slot>,
    low: Room,
    high: Room,
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
            low: Room::new(PCI_MMIO_START, PCI_MMIO_END),
            high: Room::new(0, 0),
        }
    }
}

impl PciRoot {
    /// Lets 64-bit BARs lie from `start` to `end` (exclusive): above guest RAM, below the
    /// end of physical addresses. Without it there is no room for them.
    pub fn set_high_room(&mut self, start: u64, end: u64) {
        self.high = Room::new(start, end);
    }

    /// First and last address of the window above guest RAM that is in use, for ACPI.
    pub fn high_window(&self) -> Option<(u64, u64)> {
        (self.high.next > self.high.start).then(|| (self.high.start, self.high.next - 1))
    }

    /// Gives out a place for a BAR of `bytes` (a power of two).
    pub fn reserve(&mut self, space: BarSpace, bytes: u64) -> Result<Place, RootError> {
        let room = match space {
            BarSpace::Low => &mut self.low,
            BarSpace::High => &mut self.high,
        };
        let address = room.take(bytes).ok_or(RootError::NoRoom { bytes, space })?;
        let window = BarWindow {
            address: Arc::new(AtomicU64::new(BAR_OFF)),
            size: bytes,
        };
        Ok(Place { address, window })
    }

    /// Number of the slot that the next device gets.
    pub fn next_slot(&self) -> u8 {
        // There are fewer than 32.
        self.slots.len() as u8 + 1
    }

    /// Puts a device with its BARs (number, window) into the next slot.
    pub fn add(
        &mut self,
        windows: Vec<(usize, BarWindow)>,
        device: Arc<dyn PciDevice>,
    ) -> Result<(), RootError> {
        if self.slots.len() + 1 >= SLOTS {
            return Err(RootError::Full);
        }
        self.slots.push(Slot { device, windows });
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
        } else if let Some((device, bar, offset)) = self.by_bar(address) {
            device.read_bar(bar, offset, data);
        }
    }

    /// Handles a write; what nobody claims is dropped.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((slot, register)) = ecam(address) {
            if let Some(slot) = slot.checked_sub(1).and_then(|index| self.slots.get(index)) {
                slot.device.write_config(register, data);
            }
        } else if let Some((device, bar, offset)) = self.by_bar(address) {
            device.write_bar(bar, offset, data);
        }
    }

    /// The devices with their registers, for people.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let register = |offset: usize| {
                let mut bytes = [0; 4];
                slot.device.read_config(offset, &mut bytes);
                u32::from_le_bytes(bytes)
            };
            let (ids, class) = (register(0), register(8) >> 8);
            // Writing into a String does not fail.
            let _ = writeln!(
                text,
                "00:{:02x}.0 {:04x}:{:04x} class {class:06x} command {:04x} {}",
                index + 1,
                ids & 0xffff,
                ids >> 16,
                register(4) & 0xffff,
                slot.device.describe()
            );
            for (bar, window) in &slot.windows {
                let place = match window.address.load(Ordering::Acquire) {
                    BAR_OFF => "off".to_owned(),
                    address => format!("at {address:#x}"),
                };
                let _ = writeln!(text, "    BAR {bar} of {:#x} bytes {place}", window.size);
            }
        }
        text
    }

    fn by_bar(&self, address: u64) -> Option<(&dyn PciDevice, usize, u64)> {
        self.slots.iter().find_map(|slot| {
            let (bar, offset) = slot
                .windows
                .iter()
                .find_map(|(bar, window)| Some((*bar, window.offset(address)?)))?;
            Some((slot.device.as_ref(), bar, offset))
        })
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
        fn read_bar(&self, bar: usize, _offset: u64, data: &mut [u8]) {
            data.fill(7 + bar as u8);
        }
        fn write_bar(&self, bar: usize, offset: u64, data: &[u8]) {
            self.0
                .lock()
                .unwrap()
                .push(format!("bar {bar} {offset:#x} {data:?}"));
        }
        fn describe(&self) -> String {
            "recorder".to_owned()
        }
    }

    #[test]
    fn addresses_find_their_device() {
        let mut root = PciRoot::default();
        let window = root.reserve(BarSpace::Low, 0x1000).unwrap().window;
        let device = Arc::new(Recorder::default());
        root.add(vec![(0, window.clone())], device.clone()).unwrap();
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
        let dump = root.dump();
        assert!(dump.starts_with("00:01.0 0000:0000 "), "{dump}");
        assert!(
            dump.contains("recorder\n    BAR 0 of 0x1000 bytes at 0xc0002000"),
            "{dump}"
        );
        root.read(PCI_MMIO_START + 0x2fff, &mut data);
        assert_eq!(data, [7, 7]);
        root.write(PCI_MMIO_START + 0x2004, &[9]);
        root.write(ECAM_START + (1 << 15) + 4, &[2, 0]);
        assert_eq!(
            *device.0.lock().unwrap(),
            vec!["bar 0 0x4 [9]", "config 0x4 [2, 0]"]
        );
    }

    #[test]
    fn the_bus_holds_31_devices() {
        let mut root = PciRoot::default();
        for _ in 0..31 {
            root.add(Vec::new(), Arc::new(Recorder::default())).unwrap();
        }
        assert!(matches!(
            root.add(Vec::new(), Arc::new(Recorder::default())),
            Err(RootError::Full)
        ));
    }

    #[test]
    fn large_bars_lie_above_ram_and_each_bar_is_told_apart() {
        const GIB: u64 = 1 << 30;
        let mut root = PciRoot::default();
        assert!(matches!(
            root.reserve(BarSpace::High, GIB),
            Err(RootError::NoRoom { .. })
        ));
        root.set_high_room(5 * GIB, 32 * GIB);
        assert_eq!(root.high_window(), None);
        let large = root.reserve(BarSpace::High, 8 * GIB).unwrap();
        let small = root.reserve(BarSpace::High, 0x4000).unwrap();
        assert_eq!((large.address, small.address), (8 * GIB, 16 * GIB));
        assert_eq!(root.high_window(), Some((5 * GIB, 16 * GIB + 0x3fff)));
        assert!(root.reserve(BarSpace::High, 16 * GIB).is_err());
        large.window.set(Some(large.address));
        small.window.set(Some(small.address));
        let windows = vec![(2, large.window), (4, small.window)];
        root.add(windows, Arc::new(Recorder::default())).unwrap();
        let mut data = [0];
        for (address, value) in [(16 * GIB - 1, 9), (16 * GIB, 11), (16 * GIB + 0x4000, 0xff)] {
            root.read(address, &mut data);
            assert_eq!(data, [value], "{address:#x}");
        }
    }
}
