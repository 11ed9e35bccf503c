//! One device as vfio-pci shows it: regions, interrupts, reset.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use vmm_sys_util::eventfd::EventFd;

use super::abi::{self, DeviceInfo, IRQ_SET_WORDS, IrqInfo, RegionInfo, request};
use super::container::VfioError;

/// Longest answer about a region; each area of a sparse one takes 16 bytes.
const REGION_INFO_MAX_BYTES: usize = 64 << 10;

/// A BAR or the configuration space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Region {
    /// Bytes; 0 when it is absent.
    pub size: u64,
    /// Where it lies in the device's file.
    pub offset: u64,
    /// The parts (offset, length) that can be mapped.
    pub mappable: Vec<(u64, u64)>,
    /// Whether it can be written.
    pub writable: bool,
}

/// What passing a device through needs of it.
pub trait Hardware: Send + Sync {
    /// What a region is.
    fn region(&self, index: u32) -> Region;
    /// Reads from a region.
    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()>;
    /// Writes to a region.
    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Maps a part of a region; gives the address in this process. The mapping stays as
    /// long as the process lives.
    fn map(&self, region: u32, offset: u64, length: u64) -> io::Result<u64>;
    /// Number of interrupts of a kind.
    fn interrupts(&self, kind: u32) -> u32;
    /// Makes the interrupts of a kind signal `events`, in order.
    fn enable(&self, kind: u32, events: &[&EventFd]) -> io::Result<()>;
    /// Makes `event` unmask INTx, which the host masks whenever it signals.
    fn unmask_by(&self, event: &EventFd) -> io::Result<()>;
    /// Switches the interrupts of a kind off.
    fn disable(&self, kind: u32) -> io::Result<()>;
    /// Puts the device into its state after power on; false when it cannot be reset.
    fn reset(&self) -> io::Result<bool>;
}

/// A device of vfio-pci.
#[derive(Debug)]
pub struct VfioHardware {
    fd: OwnedFd,
    regions: Vec<Region>,
    can_reset: bool,
}

impl VfioHardware {
    pub(super) fn new(fd: OwnedFd, address: &str) -> Result<Self, VfioError> {
        let mut info = DeviceInfo {
            argsz: size_of::<DeviceInfo>() as u32,
            ..DeviceInfo::default()
        };
        // SAFETY: the structure is as long as it says.
        unsafe { request(fd.as_raw_fd(), abi::VFIO_DEVICE_GET_INFO, &raw mut info) }
            .map_err(VfioError::request("inspect a device"))?;
        if info.flags & abi::DEVICE_IS_PCI == 0 {
            return Err(VfioError::NotPci {
                address: address.to_owned(),
            });
        }
        let regions = (0..=abi::CONFIG_REGION)
            .map(|index| region(&fd, index))
            .collect::<io::Result<_>>()
            .map_err(VfioError::request("inspect a region"))?;
        Ok(Self {
            fd,
            regions,
            can_reset: info.flags & abi::DEVICE_CAN_RESET != 0,
        })
    }

    /// Where bytes of a region lie in the file.
    fn position(&self, region: u32, offset: u64, length: usize) -> io::Result<libc::off_t> {
        let outside = || io::Error::from(io::ErrorKind::InvalidInput);
        let region = self.regions.get(region as usize).ok_or_else(outside)?;
        let end = offset.checked_add(length as u64).ok_or_else(outside)?;
        if end > region.size {
            return Err(outside());
        }
        libc::off_t::try_from(region.offset + offset).map_err(|_| outside())
    }

    fn set_irqs(&self, flags: u32, index: u32, events: &[&EventFd]) -> io::Result<()> {
        let count = events.len() as u32;
        let bytes = (IRQ_SET_WORDS + events.len()) * size_of::<u32>();
        let mut words = vec![bytes as u32, flags, index, 0, count];
        words.extend(events.iter().map(|event| event.as_raw_fd() as u32));
        // SAFETY: the buffer is as long as its first word says.
        unsafe {
            request(
                self.fd.as_raw_fd(),
                abi::VFIO_DEVICE_SET_IRQS,
                words.as_mut_ptr(),
            )
        }
        .map(|_| ())
    }
}

fn region(fd: &OwnedFd, index: u32) -> io::Result<Region> {
    let mut bytes = size_of::<RegionInfo>();
    loop {
        let mut answer = vec![0u64; bytes.div_ceil(size_of::<u64>())];
        let info = RegionInfo {
            argsz: bytes as u32,
            index,
            ..RegionInfo::default()
        };
        let start = answer.as_mut_ptr().cast::<RegionInfo>();
        // SAFETY: the buffer is aligned and at least as long as the structure, and as long
        // as the structure says.
        let info = unsafe {
            start.write(info);
            request(fd.as_raw_fd(), abi::VFIO_DEVICE_GET_REGION_INFO, start)?;
            start.read()
        };
        let needed = info.argsz as usize;
        if needed > bytes && needed <= REGION_INFO_MAX_BYTES {
            bytes = needed;
            continue;
        }
        let answer: Vec<u8> = answer.iter().flat_map(|word| word.to_le_bytes()).collect();
        return Ok(describe(&info, &answer));
    }
}

fn describe(info: &RegionInfo, answer: &[u8]) -> Region {
    let mappable = if info.flags & abi::REGION_MMAP == 0 {
        Vec::new()
    } else if info.flags & abi::REGION_CAPABILITIES == 0 {
        vec![(0, info.size)]
    } else {
        sparse_areas(answer, info.cap_offset as usize).unwrap_or_else(|| vec![(0, info.size)])
    };
    Region {
        size: info.size,
        offset: info.offset,
        mappable,
        writable: info.flags & abi::REGION_WRITE != 0,
    }
}

/// The areas of a region of which only parts can be mapped.
fn sparse_areas(answer: &[u8], first: usize) -> Option<Vec<(u64, u64)>> {
    let word = |at: usize| -> Option<u32> {
        let bytes = answer.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let long = |at: usize| Some(u64::from(word(at)?) | u64::from(word(at + 4)?) << 32);
    let mut at = first;
    while at != 0 {
        let id = word(at)? as u16;
        let next = word(at + 4)? as usize;
        if id == abi::CAPABILITY_SPARSE_MMAP {
            let count = word(at + 8)? as usize;
            return (0..count)
                .map(|index| Some((long(at + 16 + index * 16)?, long(at + 24 + index * 16)?)))
                .collect();
        }
        // The kernel chains forwards; anything else would not end.
        at = if next > at { next } else { 0 };
    }
    None
}

impl Hardware for VfioHardware {
    fn region(&self, index: u32) -> Region {
        self.regions
            .get(index as usize)
            .cloned()
            .unwrap_or_default()
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let position = self.position(region, offset, data.len())?;
        // SAFETY: the buffer is valid for its length.
        let count = unsafe {
            libc::pread(
                self.fd.as_raw_fd(),
                data.as_mut_ptr().cast(),
                data.len(),
                position,
            )
        };
        whole(count, data.len())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let position = self.position(region, offset, data.len())?;
        // SAFETY: the buffer is valid for its length.
        let count = unsafe {
            libc::pwrite(
                self.fd.as_raw_fd(),
                data.as_ptr().cast(),
                data.len(),
                position,
            )
        };
        whole(count, data.len())
    }

    fn map(&self, region: u32, offset: u64, length: u64) -> io::Result<u64> {
        let outside = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let length = usize::try_from(length).map_err(outside)?;
        let position = self.position(region, offset, length)?;
        let mut protection = libc::PROT_READ;
        if self.region(region).writable {
            protection |= libc::PROT_WRITE;
        }
        // SAFETY: a new mapping of the device's file; nothing of this process is replaced.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                self.fd.as_raw_fd(),
                position,
            )
        };
        if address == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(address as u64)
        }
    }

    fn interrupts(&self, kind: u32) -> u32 {
        let mut info = IrqInfo {
            argsz: size_of::<IrqInfo>() as u32,
            index: kind,
            ..IrqInfo::default()
        };
        let raw = self.fd.as_raw_fd();
        // SAFETY: the structure is as long as it says.
        let outcome = unsafe { request(raw, abi::VFIO_DEVICE_GET_IRQ_INFO, &raw mut info) };
        outcome.map_or(0, |_| info.count)
    }

    fn enable(&self, kind: u32, events: &[&EventFd]) -> io::Result<()> {
        self.set_irqs(
            abi::IRQ_DATA_EVENTFD | abi::IRQ_ACTION_TRIGGER,
            kind,
            events,
        )
    }

    fn unmask_by(&self, event: &EventFd) -> io::Result<()> {
        self.set_irqs(
            abi::IRQ_DATA_EVENTFD | abi::IRQ_ACTION_UNMASK,
            abi::INTX,
            &[event],
        )
    }

    fn disable(&self, kind: u32) -> io::Result<()> {
        self.set_irqs(abi::IRQ_DATA_NONE | abi::IRQ_ACTION_TRIGGER, kind, &[])
    }

    fn reset(&self) -> io::Result<bool> {
        if !self.can_reset {
            return Ok(false);
        }
        abi::request_number(self.fd.as_raw_fd(), abi::VFIO_DEVICE_RESET, 0).map(|_| true)
    }
}

fn whole(count: isize, wanted: usize) -> io::Result<()> {
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    if count as usize != wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_regions_are_mapped_in_parts() {
        let mut answer = vec![0u8; 32];
        // Another capability (id 3), then the sparse one (id 1) with two areas.
        for word in [3u32, 40, 1, 0, 2, 0] {
            answer.extend(word.to_le_bytes());
        }
        for long in [0u64, 0x1000, 0x3000, 0x2000] {
            answer.extend(long.to_le_bytes());
        }
        let areas = vec![(0, 0x1000), (0x3000, 0x2000)];
        assert_eq!(sparse_areas(&answer, 32), Some(areas.clone()));
        let info = RegionInfo {
            flags: abi::REGION_MMAP | abi::REGION_CAPABILITIES,
            cap_offset: 32,
            size: 0x8000,
            ..RegionInfo::default()
        };
        assert_eq!(describe(&info, &answer).mappable, areas);
        assert_eq!(sparse_areas(&answer, 4000), None);
    }
}
