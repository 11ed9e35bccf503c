//! A device in memory that remembers what it was asked to do.

use std::io;
use std::sync::Mutex;

use vmm_sys_util::eventfd::EventFd;

use super::abi::{BARS, CONFIG_REGION, INTX, MSI, MSIX};
use super::hardware::{Hardware, Region};
use super::mappings::MemorySlots;

pub struct FakeHardware {
    pub regions: Vec<Region>,
    pub bytes: Mutex<Vec<Vec<u8>>>,
    pub vectors: [u32; 3],
    pub log: Mutex<Vec<String>>,
    /// What the interrupts of the kind that is on signal.
    pub events: Mutex<Vec<EventFd>>,
}

impl FakeHardware {
    /// An Express device with these BARs (register flags, size).
    pub fn new(bars: [(u32, u64); BARS]) -> Self {
        let mut regions: Vec<Region> = bars
            .iter()
            .map(|(_, size)| Region {
                size: *size,
                mappable: vec![(0, *size)],
                writable: true,
                offset: 0,
            })
            .collect();
        regions.push(Region::default());
        regions.push(Region {
            size: 4096,
            ..Region::default()
        });
        let mut bytes: Vec<Vec<u8>> = regions
            .iter()
            .map(|region| vec![0; region.size.min(0x1_0000) as usize])
            .collect();
        let config = &mut bytes[CONFIG_REGION as usize];
        config[..4].copy_from_slice(&0x0010_1b36u32.to_le_bytes());
        config[6] = 0x10;
        config[0xe] = 0x80;
        for (index, (flags, _)) in bars.iter().enumerate() {
            config[0x10 + index * 4] = *flags as u8;
        }
        Self {
            regions,
            bytes: Mutex::new(bytes),
            vectors: [1, 0, 0],
            log: Mutex::default(),
            events: Mutex::default(),
        }
    }

    /// Writes configuration space as its maker would.
    pub fn config(mut self, offset: usize, bytes: &[u8]) -> Self {
        let all = self.bytes.get_mut().unwrap();
        all[CONFIG_REGION as usize][offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// An MSI-X capability at 0x40 with 3 vectors: table at 0x2000, pending bits at 0x3000
    /// of BAR 0; MSI with 4 vectors, 64 bits and masks at 0x50; vital product data (which
    /// the guest does not get) at 0x70; Express at 0x80.
    pub fn with_capabilities(mut self) -> Self {
        self.vectors = [1, 4, 3];
        self.config(0x34, &[0x40])
            .config(0x40, &[0x11, 0x70, 2, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0])
            .config(0x70, &[0x03, 0x50, 7, 7])
            .config(0x50, &[0x05, 0x80, 0x84, 0x01])
            .config(0x80, &[0x10, 0x00, 0x02, 0x00])
    }

    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }
}

fn name(kind: u32) -> &'static str {
    match kind {
        INTX => "intx",
        MSI => "msi",
        MSIX => "msix",
        _ => "unknown",
    }
}

impl Hardware for FakeHardware {
    fn region(&self, index: u32) -> Region {
        self.regions[index as usize].clone()
    }
    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let from = bytes[region as usize].get(offset as usize..offset as usize + data.len());
        data.copy_from_slice(from.ok_or(io::ErrorKind::InvalidInput)?);
        Ok(())
    }
    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let to = bytes[region as usize].get_mut(offset as usize..offset as usize + data.len());
        to.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(data);
        Ok(())
    }
    fn map(&self, region: u32, offset: u64, _length: u64) -> io::Result<u64> {
        Ok((u64::from(region) + 1) << 40 | offset)
    }
    fn interrupts(&self, kind: u32) -> u32 {
        self.vectors[kind as usize]
    }
    fn enable(&self, kind: u32, events: &[&EventFd]) -> io::Result<()> {
        self.note(format!("{} on {}", name(kind), events.len()));
        *self.events.lock().unwrap() = events.iter().map(|e| e.try_clone().unwrap()).collect();
        Ok(())
    }
    fn unmask_by(&self, _event: &EventFd) -> io::Result<()> {
        self.note("unmasked by the guest".to_owned());
        Ok(())
    }
    fn disable(&self, kind: u32) -> io::Result<()> {
        self.note(format!("{} off", name(kind)));
        Ok(())
    }
    fn reset(&self) -> io::Result<bool> {
        self.note("reset".to_owned());
        Ok(true)
    }
}

/// Memory slots by number: (guest, host, length).
#[derive(Default)]
pub struct FakeSlots(pub Mutex<std::collections::BTreeMap<u32, (u64, u64, u64)>>);

impl MemorySlots for FakeSlots {
    fn set(&self, slot: u32, guest: u64, host: u64, length: u64) -> Result<(), kvm_ioctls::Error> {
        // RAM ends at 1 GiB.
        if guest < 1 << 30 {
            return Err(kvm_ioctls::Error::new(libc::EEXIST));
        }
        self.0.lock().unwrap().insert(slot, (guest, host, length));
        Ok(())
    }
    fn clear(&self, slot: u32) -> Result<(), kvm_ioctls::Error> {
        self.0.lock().unwrap().remove(&slot);
        Ok(())
    }
}
