//! Configuration space of a device that is passed through: which bytes are the device's,
//! which are ours.
//!
//! Ours are the BARs, MSI and MSI-X control, the interrupt pin, and the chain of
//! capabilities, from which those are left out that the guest has no use for or that reach
//! beyond the device (SR-IOV, ATS, resizable BARs, vital product data). All else is
//! vfio-pci's, which itself keeps the guest from registers that could harm the host.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::abi::{BARS, CONFIG_REGION};
use super::bars::Bar;
use super::hardware::Hardware;

const LEGACY_BYTES: usize = 256;
const EXPRESS_BYTES: usize = 4096;
const COMMAND: usize = 0x04;
const HEADER_TYPE: usize = 0x0e;
const BAR0: usize = 0x10;
const CARDBUS_POINTER: usize = 0x28;
const ROM: usize = 0x30;
const CAPABILITY_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const FIRST_CAPABILITY: usize = 0x40;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
const HEADER_MULTIFUNCTION: u8 = 0x80;

const CAPABILITY_MSI: u8 = 0x05;
const CAPABILITY_EXPRESS: u8 = 0x10;
const CAPABILITY_MSIX: u8 = 0x11;
/// Power management, MSI, vendor-specific, subsystem, Express, MSI-X, SATA, advanced features.
const KEPT: &[u8] = &[
    0x01,
    CAPABILITY_MSI,
    0x09,
    0x0d,
    CAPABILITY_EXPRESS,
    CAPABILITY_MSIX,
    0x12,
    0x13,
];
/// Advanced error reporting, serial number, power budget, vendor-specific (both kinds).
const KEPT_EXTENDED: &[u16] = &[0x0001, 0x0003, 0x0004, 0x000b, 0x0023];
/// "Root complex integrated endpoint": there is no port above the device in the guest.
const EXPRESS_TYPE_INTEGRATED: u8 = 9 << 4;

const MSI_64_BIT: u16 = 1 << 7;
const MSI_MASKS: u16 = 1 << 8;
const MSI_ENABLE: u16 = 1;
const MSIX_COUNT_MASK: u16 = 0x7ff;
const MSIX_BAR_MASK: u32 = 7;
const MSIX_TABLE_ENTRY_BYTES: u64 = 16;

/// Where the MSI-X structures of a device lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsixLayout {
    /// Number of vectors.
    pub vectors: u16,
    /// BAR and offset of the table.
    pub table: (usize, u64),
    /// BAR and offset of the pending bits.
    pub pending: (usize, u64),
    control: usize,
}

impl MsixLayout {
    /// Bytes of the table.
    pub fn table_bytes(&self) -> u64 {
        u64::from(self.vectors) * MSIX_TABLE_ENTRY_BYTES
    }

    /// Bytes of the pending bits.
    pub fn pending_bytes(&self) -> u64 {
        u64::from(self.vectors).div_ceil(64) * 8
    }
}

/// MSI as the guest has set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MsiRegisters {
    /// Switched on.
    pub enabled: bool,
    /// Vectors in use, a power of two up to 32.
    pub count: u32,
    /// Message address.
    pub address: u64,
    /// Message data of vector 0.
    pub data: u16,
    /// Masked vectors.
    pub mask: u32,
}

/// See the module.
pub struct Space {
    hardware: Arc<dyn Hardware>,
    length: usize,
    ours: Vec<bool>,
    shadow: Vec<u8>,
    writable: Vec<u8>,
    msi: Option<usize>,
    msix: Option<MsixLayout>,
}

impl Space {
    /// Reads the capabilities; `bars` are those that the guest gets.
    pub fn new(hardware: Arc<dyn Hardware>, bars: &[Bar], has_intx: bool) -> io::Result<Self> {
        let length = if hardware.region(CONFIG_REGION).size >= EXPRESS_BYTES as u64 {
            EXPRESS_BYTES
        } else {
            LEGACY_BYTES
        };
        let mut space = Self {
            hardware,
            length,
            ours: vec![false; length],
            shadow: vec![0; length],
            writable: vec![0; length],
            msi: None,
            msix: None,
        };
        for offset in (0..length).step_by(4) {
            let mut word = [0; 4];
            space
                .hardware
                .read(CONFIG_REGION, offset as u64, &mut word)?;
            space.shadow[offset..offset + 4].copy_from_slice(&word);
        }
        space.take(
            HEADER_TYPE,
            &[space.shadow[HEADER_TYPE] & !HEADER_MULTIFUNCTION],
        );
        space.take(BAR0, &[0; BARS * 4]);
        space.take(CARDBUS_POINTER, &[0; 4]);
        space.take(ROM, &[0; 4]);
        space.take(INTERRUPT_LINE, &[0xff, u8::from(has_intx)]);
        space.writable[INTERRUPT_LINE] = 0xff;
        debug_assert_eq!(INTERRUPT_PIN, INTERRUPT_LINE + 1);
        space.take_capabilities(bars);
        if length == EXPRESS_BYTES {
            space.take_extended_capabilities();
        }
        Ok(space)
    }

    /// Makes bytes ours, read-only.
    fn take(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.ours[offset..end].fill(true);
        self.writable[offset..end].fill(0);
        self.shadow[offset..end].copy_from_slice(bytes);
    }

    /// Puts a BAR at an address.
    pub fn place_bar(&mut self, bar: &Bar, address: u64) {
        let register = BAR0 + bar.index * 4;
        let bytes = if bar.is_64_bit() { 8 } else { 4 };
        let value = address | u64::from(bar.flags);
        let mask = !(bar.size - 1);
        self.shadow[register..register + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        self.writable[register..register + bytes].copy_from_slice(&mask.to_le_bytes()[..bytes]);
    }

    /// Address of a BAR, when memory decoding is on.
    pub fn bar_address(&self, bar: &Bar) -> u64 {
        let register = BAR0 + bar.index * 4;
        let low = u64::from(self.u32(register) & !0xf);
        if bar.is_64_bit() {
            low | u64::from(self.u32(register + 4)) << 32
        } else {
            low
        }
    }

    /// The command register, as vfio-pci shows it.
    fn command(&self) -> io::Result<u16> {
        let mut bytes = [0; 2];
        self.hardware
            .read(CONFIG_REGION, COMMAND as u64, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// Whether memory decoding is on, and whether INTx is off.
    pub fn decoding_and_intx_off(&self) -> io::Result<(bool, bool)> {
        let command = self.command()?;
        Ok((
            command & COMMAND_MEMORY != 0,
            command & COMMAND_INTX_DISABLE != 0,
        ))
    }

    /// MSI-X of the device.
    pub fn msix(&self) -> Option<MsixLayout> {
        self.msix
    }

    /// The MSI-X control register as the guest set it.
    pub fn msix_control(&self) -> u16 {
        self.msix.map_or(0, |msix| self.u16(msix.control))
    }

    /// Most MSI vectors of the device; 0 when it has none.
    pub fn msi_vectors(&self) -> u32 {
        self.msi
            .map_or(0, |at| 1 << (self.u16(at + 2) >> 1 & 7).min(5))
    }

    /// MSI as the guest set it.
    pub fn msi_registers(&self) -> MsiRegisters {
        let Some(at) = self.msi else {
            return MsiRegisters::default();
        };
        let control = self.u16(at + 2);
        let high = control & MSI_64_BIT != 0;
        let address = u64::from(self.u32(at + 4))
            | if high {
                u64::from(self.u32(at + 8)) << 32
            } else {
                0
            };
        let data = if high { at + 12 } else { at + 8 };
        MsiRegisters {
            enabled: control & MSI_ENABLE != 0,
            count: (1 << (control >> 4 & 7).min(5)).min(self.msi_vectors()),
            address,
            data: self.u16(data),
            mask: if control & MSI_MASKS != 0 {
                self.u32(data + 4)
            } else {
                0
            },
        }
    }

    /// Reads; offsets behind the end read as zero.
    pub fn read(&self, offset: usize, data: &mut [u8]) -> io::Result<()> {
        data.fill(0);
        let end = offset.saturating_add(data.len()).min(self.length);
        if offset >= end {
            return Ok(());
        }
        let data = &mut data[..end - offset];
        for (start, stop, ours) in self.runs(offset, end) {
            let part = &mut data[start - offset..stop - offset];
            if ours {
                part.copy_from_slice(&self.shadow[start..stop]);
            } else {
                self.hardware.read(CONFIG_REGION, start as u64, part)?;
            }
        }
        Ok(())
    }

    /// Writes what the guest may write.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(data.len()).min(self.length);
        if offset >= end {
            return Ok(());
        }
        for (start, stop, ours) in self.runs(offset, end) {
            let part = &data[start - offset..stop - offset];
            if !ours {
                self.hardware.write(CONFIG_REGION, start as u64, part)?;
                continue;
            }
            for (position, byte) in (start..stop).zip(part) {
                let mask = self.writable[position];
                self.shadow[position] = (self.shadow[position] & !mask) | (byte & mask);
            }
        }
        Ok(())
    }

    /// Splits bytes into (start, end, ours).
    fn runs(&self, start: usize, end: usize) -> Vec<(usize, usize, bool)> {
        let mut runs: Vec<(usize, usize, bool)> = Vec::new();
        for position in start..end {
            let ours = self.ours[position];
            match runs.last_mut() {
                Some(last) if last.2 == ours => last.1 = position + 1,
                _ => runs.push((position, position + 1, ours)),
            }
        }
        runs
    }

    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.shadow[offset], self.shadow[offset + 1]])
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }

    /// Chains the capabilities that are kept; the others read as zero.
    fn take_capabilities(&mut self, bars: &[Bar]) {
        let found = walk(usize::from(self.shadow[CAPABILITY_POINTER]), |at| {
            let valid = at >= FIRST_CAPABILITY && at + 4 <= LEGACY_BYTES;
            valid.then(|| {
                (
                    u16::from(self.shadow[at]),
                    usize::from(self.shadow[at + 1] & !3),
                )
            })
        });
        let mut pointer = CAPABILITY_POINTER;
        self.take(CAPABILITY_POINTER, &[0]);
        for (at, end, id) in extents(&found, LEGACY_BYTES) {
            if !KEPT.contains(&(id as u8)) || !self.take_registers(at, end, id as u8, bars) {
                self.take(at, &vec![0; end - at]);
                continue;
            }
            self.take(at, &[id as u8, 0]);
            self.shadow[pointer] = at as u8;
            pointer = at + 1;
        }
    }

    /// Takes the registers of a capability that are ours; false when it makes no sense.
    fn take_registers(&mut self, at: usize, end: usize, id: u8, bars: &[Bar]) -> bool {
        match id {
            CAPABILITY_MSI => self.take_msi(at, end),
            CAPABILITY_MSIX => self.take_msix(at, end, bars),
            CAPABILITY_EXPRESS => {
                let kind = self.shadow[at + 2] & 0xf | EXPRESS_TYPE_INTEGRATED;
                self.take(at + 2, &[kind]);
                true
            }
            _ => true,
        }
    }

    fn take_msi(&mut self, at: usize, end: usize) -> bool {
        let control = self.u16(at + 2) & (0xe | MSI_64_BIT | MSI_MASKS);
        let data = if control & MSI_64_BIT != 0 { 12 } else { 8 };
        let length = if control & MSI_MASKS != 0 {
            data + 12
        } else {
            data + 2
        };
        if at + length > end || self.msi.is_some() {
            return false;
        }
        self.take(at + 2, &vec![0; length - 2]);
        self.shadow[at + 2..at + 4].copy_from_slice(&control.to_le_bytes());
        self.writable[at + 2] = 0x71;
        self.writable[at + 4..at + data + 2].fill(0xff);
        self.writable[at + 4] = 0xfc;
        if control & MSI_MASKS != 0 {
            self.writable[at + data + 4..at + data + 8].fill(0xff);
        }
        self.msi = Some(at);
        true
    }

    fn take_msix(&mut self, at: usize, end: usize, bars: &[Bar]) -> bool {
        if at + 12 > end || self.msix.is_some() {
            return false;
        }
        let control = self.u16(at + 2) & MSIX_COUNT_MASK;
        let place = |word: u32| {
            (
                (word & MSIX_BAR_MASK) as usize,
                u64::from(word & !MSIX_BAR_MASK),
            )
        };
        let layout = MsixLayout {
            vectors: control + 1,
            table: place(self.u32(at + 4)),
            pending: place(self.u32(at + 8)),
            control: at + 2,
        };
        let fits = |(bar, offset): (usize, u64), bytes: u64| {
            bars.iter()
                .any(|one| one.index == bar && offset + bytes <= one.size)
        };
        if !fits(layout.table, layout.table_bytes())
            || !fits(layout.pending, layout.pending_bytes())
        {
            return false;
        }
        self.take(at + 2, &control.to_le_bytes());
        self.writable[at + 3] = 0xc0;
        self.msix = Some(layout);
        true
    }

    /// The same for the capabilities of PCI Express. The first one stays as an empty link.
    fn take_extended_capabilities(&mut self) {
        let found = walk(LEGACY_BYTES, |at| {
            let valid = at >= LEGACY_BYTES && at + 4 <= EXPRESS_BYTES;
            let header = valid.then(|| self.u32(at)).filter(|word| *word != 0)?;
            Some((header as u16, (header >> 20) as usize & !3))
        });
        let mut last = None;
        for (at, end, id) in extents(&found, EXPRESS_BYTES) {
            let kept = KEPT_EXTENDED.contains(&id);
            let header = if kept {
                self.u32(at) & 0xf_ffff
            } else {
                self.take(at, &vec![0; end - at]);
                0
            };
            self.take(at, &header.to_le_bytes());
            if kept && let Some(last) = last {
                let header = self.u32(last) | (at as u32) << 20;
                self.take(last, &header.to_le_bytes());
            }
            if kept || at == LEGACY_BYTES {
                last = Some(at);
            }
        }
    }
}

/// Follows a chain of (id, next) from `first` on; ends at a place that was visited already.
fn walk(first: usize, capability: impl Fn(usize) -> Option<(u16, usize)>) -> BTreeMap<usize, u16> {
    let mut found = BTreeMap::new();
    let mut at = first & !3;
    while let Some((id, next)) = capability(at) {
        if found.insert(at, id).is_some() {
            break;
        }
        at = next;
    }
    found
}

/// (start, end, id): a capability ends at the latest where the next one begins.
fn extents(found: &BTreeMap<usize, u16>, end: usize) -> Vec<(usize, usize, u16)> {
    let ends = found.keys().copied().skip(1).chain([end]);
    found
        .iter()
        .zip(ends)
        .map(|((at, id), end)| (*at, end, *id))
        .collect()
}

#[cfg(test)]
mod tests;
