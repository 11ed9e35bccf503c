//! The configuration space of a type 0 function with one 32-bit memory BAR.

/// Bytes of configuration space that are kept; the rest of the 4 KiB reads as zero.
pub const CONFIG_BYTES: usize = 256;
const VENDOR: usize = 0x00;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const CAPABILITY_POINTER: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
const STATUS_CAPABILITY_LIST: u16 = 1 << 4;

/// Identification of a function.
#[derive(Debug, Clone, Copy)]
pub struct HeaderIds {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface as in the register (24 bits).
    pub class: u32,
}

/// A capability: its id, its bytes after id and next pointer, and which of those bits the
/// guest may write.
#[derive(Debug, Clone)]
pub struct Capability {
    /// Capability id.
    pub id: u8,
    /// Body after the two header bytes.
    pub body: Vec<u8>,
    /// Writable bits of the body; as long as the body.
    pub writable: Vec<u8>,
}

/// What a write to configuration space changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConfigWrite {
    /// The BAR or the memory enable bit is different now.
    pub bar_changed: bool,
}

/// Registers and their writable bits.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    registers: [u8; CONFIG_BYTES],
    writable: [u8; CONFIG_BYTES],
    next_capability: usize,
    last_pointer: usize,
}

impl ConfigSpace {
    /// A function without BAR and capabilities.
    pub fn new(ids: HeaderIds) -> Self {
        let mut space = Self {
            registers: [0; CONFIG_BYTES],
            writable: [0; CONFIG_BYTES],
            next_capability: FIRST_CAPABILITY,
            last_pointer: CAPABILITY_POINTER,
        };
        space.put(VENDOR, &ids.vendor.to_le_bytes());
        space.put(0x02, &ids.device.to_le_bytes());
        space.put(
            0x08,
            &(u32::from(ids.revision) | ids.class << 8).to_le_bytes(),
        );
        space.put(0x2c, &ids.subsystem_vendor.to_le_bytes());
        space.put(0x2e, &ids.subsystem.to_le_bytes());
        let command = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
        space.writable[COMMAND..COMMAND + 2].copy_from_slice(&command.to_le_bytes());
        // Cache line size and interrupt line are plain scratch registers.
        space.writable[0x0c] = 0xff;
        space.writable[0x3c] = 0xff;
        space
    }

    /// Adds BAR 0: 32-bit memory of `size` bytes (a power of two) at `address`.
    pub fn add_bar0(&mut self, address: u32, size: u32) {
        self.put(BAR0, &address.to_le_bytes());
        let mask = !(size - 1) & !0xf;
        self.writable[BAR0..BAR0 + 4].copy_from_slice(&mask.to_le_bytes());
    }

    /// Adds a capability; returns its offset, or `None` when there is no room.
    pub fn add_capability(&mut self, capability: &Capability) -> Option<usize> {
        let offset = self.next_capability;
        let end = offset + 2 + capability.body.len();
        if end > CONFIG_BYTES || capability.body.len() != capability.writable.len() {
            return None;
        }
        self.registers[self.last_pointer] = offset as u8;
        self.last_pointer = offset + 1;
        self.registers[offset] = capability.id;
        self.put(offset + 2, &capability.body);
        self.writable[offset + 2..end].copy_from_slice(&capability.writable);
        self.registers[STATUS] |= STATUS_CAPABILITY_LIST as u8;
        self.next_capability = end.next_multiple_of(4);
        Some(offset)
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.registers[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads; offsets behind the kept registers read as zero.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let position = offset.saturating_add(index);
            *byte = self.registers.get(position).copied().unwrap_or(0);
        }
    }

    /// Writes what is writable.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> ConfigWrite {
        let before = (self.memory_bar(), self.u32(BAR0));
        for (index, byte) in data.iter().enumerate() {
            let position = offset.saturating_add(index);
            if position >= CONFIG_BYTES {
                break;
            }
            let mask = self.writable[position];
            self.registers[position] = (self.registers[position] & !mask) | (byte & mask);
        }
        ConfigWrite {
            bar_changed: before != (self.memory_bar(), self.u32(BAR0)),
        }
    }

    /// Address of BAR 0 when the guest has switched memory decoding on.
    pub fn memory_bar(&self) -> Option<u64> {
        let command = u16::from_le_bytes([self.registers[COMMAND], self.registers[COMMAND + 1]]);
        let enabled = command & COMMAND_MEMORY != 0 && self.u32(BAR0) != 0;
        enabled.then(|| u64::from(self.u32(BAR0) & !0xf))
    }

    /// A 16-bit register.
    pub fn u16(&self, offset: usize) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// A 32-bit register.
    pub fn u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(HeaderIds {
            vendor: 0x1af4,
            device: 0x1042,
            subsystem_vendor: 0x1af4,
            subsystem: 2,
            revision: 1,
            class: 0x01_8000,
        })
    }

    #[test]
    fn ids_and_class_are_read_only() {
        let mut space = space();
        space.write(0, &[0; 16]);
        assert_eq!(space.u32(0), 0x1042_1af4);
        assert_eq!(space.u32(8), 0x0180_0001);
    }

    #[test]
    fn bar_answers_its_size_and_moves() {
        let mut space = space();
        space.add_bar0(0xc000_0000, 0x1_0000);
        assert_eq!(space.memory_bar(), None);
        assert!(space.write(COMMAND, &[2, 0]).bar_changed);
        assert_eq!(space.memory_bar(), Some(0xc000_0000));
        space.write(COMMAND, &[0, 0]);
        space.write(BAR0, &[0xff; 4]);
        assert_eq!(space.u32(BAR0), 0xffff_0000);
        assert!(space.write(BAR0, &0xc123_4567u32.to_le_bytes()).bar_changed);
        space.write(COMMAND, &[2, 0]);
        assert_eq!(space.memory_bar(), Some(0xc123_0000));
    }

    #[test]
    fn capabilities_are_chained_and_end() {
        let mut space = space();
        let capability = |id| Capability {
            id,
            body: vec![1, 2, 3],
            writable: vec![0, 0, 0xff],
        };
        assert_eq!(space.add_capability(&capability(9)), Some(0x40));
        assert_eq!(space.add_capability(&capability(0x11)), Some(0x48));
        assert_eq!(
            space.u16(STATUS) & STATUS_CAPABILITY_LIST,
            STATUS_CAPABILITY_LIST
        );
        assert_eq!(space.u16(CAPABILITY_POINTER) & 0xff, 0x40);
        assert_eq!(space.u16(0x40), 0x4809);
        assert_eq!(space.u16(0x48), 0x0011);
        space.write(0x40, &[0xaa; 5]);
        assert_eq!(space.u16(0x40), 0x4809);
        assert_eq!(space.u32(0x42) & 0xff_ffff, 0xaa_0201);
    }

    #[test]
    fn garbage_offsets_neither_panic_nor_change_anything() {
        let mut space = space();
        let mut data = [0xff; 8];
        space.read(usize::MAX - 3, &mut data);
        assert_eq!(data, [0; 8]);
        assert_eq!(
            space.write(usize::MAX - 3, &[0xff; 8]),
            ConfigWrite::default()
        );
        space.read(254, &mut data);
        space.write(254, &[0xff; 8]);
    }

    #[test]
    fn a_full_space_takes_no_more_capabilities() {
        let mut space = space();
        let large = Capability {
            id: 9,
            body: vec![0; 300],
            writable: vec![0; 300],
        };
        assert_eq!(space.add_capability(&large), None);
    }
}
