//! The part of linux/vfio.h that is used.

use std::io;
use std::os::fd::RawFd;

/// `_IO(';', 100)` and what follows.
pub const VFIO_GET_API_VERSION: libc::c_ulong = 0x3b64;
pub const VFIO_CHECK_EXTENSION: libc::c_ulong = 0x3b65;
pub const VFIO_SET_IOMMU: libc::c_ulong = 0x3b66;
pub const VFIO_GROUP_GET_STATUS: libc::c_ulong = 0x3b67;
pub const VFIO_GROUP_SET_CONTAINER: libc::c_ulong = 0x3b68;
pub const VFIO_GROUP_GET_DEVICE_FD: libc::c_ulong = 0x3b6a;
pub const VFIO_DEVICE_GET_INFO: libc::c_ulong = 0x3b6b;
pub const VFIO_DEVICE_GET_REGION_INFO: libc::c_ulong = 0x3b6c;
pub const VFIO_DEVICE_GET_IRQ_INFO: libc::c_ulong = 0x3b6d;
/// Connects eventfds with a device's interrupts.
pub const VFIO_DEVICE_SET_IRQS: libc::c_ulong = 0x3b6e;
/// Puts a device into its state after power on.
pub const VFIO_DEVICE_RESET: libc::c_ulong = 0x3b6f;
pub const VFIO_IOMMU_MAP_DMA: libc::c_ulong = 0x3b71;

pub const API_VERSION: libc::c_int = 0;
pub const TYPE1V2_IOMMU: libc::c_ulong = 3;

pub const GROUP_VIABLE: u32 = 1;
pub const GROUP_CONTAINER_SET: u32 = 2;

pub const DEVICE_CAN_RESET: u32 = 1;
pub const DEVICE_IS_PCI: u32 = 2;

pub const REGION_WRITE: u32 = 2;
pub const REGION_MMAP: u32 = 4;
pub const REGION_CAPABILITIES: u32 = 8;
pub const CAPABILITY_SPARSE_MMAP: u16 = 1;
/// Regions: BARs 0 to 5, ROM, configuration space.
pub const CONFIG_REGION: u32 = 7;
/// Number of BARs.
pub const BARS: usize = 6;

pub const INTX: u32 = 0;
pub const MSI: u32 = 1;
pub const MSIX: u32 = 2;

pub const IRQ_DATA_NONE: u32 = 1;
pub const IRQ_DATA_EVENTFD: u32 = 4;
pub const IRQ_ACTION_UNMASK: u32 = 0x10;
pub const IRQ_ACTION_TRIGGER: u32 = 0x20;

pub const DMA_READ: u32 = 1;
pub const DMA_WRITE: u32 = 2;

#[repr(C)]
#[derive(Default)]
pub struct GroupStatus {
    pub argsz: u32,
    pub flags: u32,
}

#[repr(C)]
#[derive(Default)]
pub struct DeviceInfo {
    pub argsz: u32,
    pub flags: u32,
    pub num_regions: u32,
    pub num_irqs: u32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
pub struct RegionInfo {
    pub argsz: u32,
    pub flags: u32,
    pub index: u32,
    pub cap_offset: u32,
    pub size: u64,
    pub offset: u64,
}

#[repr(C)]
#[derive(Default)]
pub struct IrqInfo {
    pub argsz: u32,
    pub flags: u32,
    pub index: u32,
    pub count: u32,
}

#[repr(C)]
#[derive(Default)]
pub struct DmaMap {
    pub argsz: u32,
    pub flags: u32,
    pub vaddr: u64,
    pub iova: u64,
    pub size: u64,
}

/// Words of `vfio_irq_set` before its data: argsz, flags, index, start, count.
pub const IRQ_SET_WORDS: usize = 5;

/// An ioctl whose argument is a number.
pub fn request_number(
    fd: RawFd,
    request: libc::c_ulong,
    value: libc::c_ulong,
) -> io::Result<libc::c_int> {
    // SAFETY: the requests that are made this way take their argument by value.
    outcome(unsafe { libc::ioctl(fd, request, value) })
}

/// An ioctl whose argument is a structure that says its own size, or points to one long
/// enough for it.
///
/// # Safety
/// `argument` must be valid for what the request reads and writes.
pub unsafe fn request<T>(
    fd: RawFd,
    request: libc::c_ulong,
    argument: *mut T,
) -> io::Result<libc::c_int> {
    // SAFETY: promised by the caller.
    outcome(unsafe { libc::ioctl(fd, request, argument) })
}

fn outcome(outcome: libc::c_int) -> io::Result<libc::c_int> {
    if outcome < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(outcome)
    }
}
