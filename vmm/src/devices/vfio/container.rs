//! Container and groups: the IOMMU's view of guest RAM, and the devices behind it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use kvm_bindings::{
    KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_VFIO,
};
use kvm_ioctls::{DeviceFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::abi::{self, DmaMap, GroupStatus, request, request_number};
use super::hardware::VfioHardware;
use crate::memory::GuestMemory;

/// A device of the host cannot be passed through.
#[derive(Debug, thiserror::Error)]
pub enum VfioError {
    /// Not /dev/vfio/vfio, or another interface than this one.
    #[error("The VFIO container descriptor is not /dev/vfio/vfio with API version 0")]
    NotContainer,
    /// The kernel has no IOMMU behind it.
    #[error(
        "The host has no IOMMU that VFIO can use (type 1, version 2): switch it on in the firmware and on the kernel's command line"
    )]
    NoIommu,
    /// The group's descriptor is something else.
    #[error("The descriptor of VFIO group {group} is not a group of /dev/vfio")]
    NotGroup {
        /// Place in the configuration.
        group: usize,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Another driver holds a device of the group.
    #[error(
        "VFIO group {group} is not viable: each of its devices must be bound to vfio-pci or to no driver"
    )]
    NotViable {
        /// Place in the configuration.
        group: usize,
    },
    /// Another process uses it.
    #[error("VFIO group {group} is in use")]
    InUse {
        /// Place in the configuration.
        group: usize,
    },
    /// A request failed.
    #[error("Failed to {doing} of VFIO")]
    Request {
        /// What was being done.
        doing: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The IOMMU did not take guest RAM.
    #[error("Failed to map {bytes} bytes of guest RAM at {address:#x} for devices")]
    Map {
        /// Guest address.
        address: u64,
        /// Length.
        bytes: u64,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The group does not give the device.
    #[error("Device {address} is not in its VFIO group or not bound to vfio-pci")]
    NoDevice {
        /// PCI address.
        address: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Platform devices and the like.
    #[error("Device {address} is not a PCI device")]
    NotPci {
        /// PCI address.
        address: String,
    },
}

impl VfioError {
    pub(super) fn request(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Request { doing, source }
    }
}

/// Groups that share an IOMMU context. It and its groups live as long as the VM.
pub struct Container {
    fd: OwnedFd,
    groups: Vec<Group>,
    /// Tells KVM which groups belong to the VM, so that it knows about their coherency.
    kvm: Option<DeviceFd>,
}

/// Devices that the IOMMU cannot tell apart.
struct Group {
    fd: OwnedFd,
}

impl Container {
    /// Joins `groups` in the container, and lets their devices reach all guest RAM.
    pub fn new(
        fd: OwnedFd,
        groups: Vec<OwnedFd>,
        memory: &GuestMemory,
        vm: &VmFd,
    ) -> Result<Self, VfioError> {
        let raw = fd.as_raw_fd();
        if request_number(raw, abi::VFIO_GET_API_VERSION, 0).ok() != Some(abi::API_VERSION) {
            return Err(VfioError::NotContainer);
        }
        let mut container = Self {
            fd,
            groups: Vec::new(),
            kvm: kvm_device(vm),
        };
        for (index, group) in groups.into_iter().enumerate() {
            container.join(index, Group { fd: group })?;
        }
        // Known only once there is a group.
        let found = request_number(raw, abi::VFIO_CHECK_EXTENSION, abi::TYPE1V2_IOMMU);
        if !matches!(found, Ok(1..)) {
            return Err(VfioError::NoIommu);
        }
        request_number(raw, abi::VFIO_SET_IOMMU, abi::TYPE1V2_IOMMU)
            .map_err(VfioError::request("set the IOMMU"))?;
        container.map(memory)?;
        Ok(container)
    }

    /// The device at a PCI address ("0000:01:00.0"), of the group with this place in the
    /// configuration.
    pub fn device(&self, group: usize, address: &str) -> Result<VfioHardware, VfioError> {
        match self.groups.get(group) {
            Some(group) => group.device(address),
            None => Err(VfioError::NoDevice {
                address: address.to_owned(),
                source: io::ErrorKind::NotFound.into(),
            }),
        }
    }

    fn join(&mut self, index: usize, group: Group) -> Result<(), VfioError> {
        let raw = group.fd.as_raw_fd();
        let mut status = GroupStatus {
            argsz: size_of::<GroupStatus>() as u32,
            flags: 0,
        };
        // SAFETY: the structure is as long as it says.
        unsafe { request(raw, abi::VFIO_GROUP_GET_STATUS, &raw mut status) }.map_err(|source| {
            VfioError::NotGroup {
                group: index,
                source,
            }
        })?;
        if status.flags & abi::GROUP_VIABLE == 0 {
            return Err(VfioError::NotViable { group: index });
        }
        if status.flags & abi::GROUP_CONTAINER_SET != 0 {
            return Err(VfioError::InUse { group: index });
        }
        let mut container = self.fd.as_raw_fd();
        // SAFETY: the request reads one int.
        unsafe { request(raw, abi::VFIO_GROUP_SET_CONTAINER, &raw mut container) }
            .map_err(VfioError::request("put a group into the container"))?;
        if let Some(kvm) = &self.kvm {
            let descriptor = raw;
            let attribute = kvm_device_attr {
                flags: 0,
                group: KVM_DEV_VFIO_GROUP,
                attr: u64::from(KVM_DEV_VFIO_GROUP_ADD),
                addr: (&raw const descriptor) as u64,
            };
            kvm.set_device_attr(&attribute)
                .map_err(|error| VfioError::Request {
                    doing: "tell KVM about a group",
                    source: io::Error::from_raw_os_error(error.errno()),
                })?;
        }
        self.groups.push(group);
        Ok(())
    }

    /// Pins all guest RAM and shows it to the devices at the addresses that the guest uses.
    fn map(&self, memory: &GuestMemory) -> Result<(), VfioError> {
        for region in memory.iter() {
            let (address, bytes) = (region.start_addr(), region.len());
            let failed = |source| VfioError::Map {
                address: address.0,
                bytes,
                source,
            };
            let host = memory
                .get_host_address(address)
                .map_err(|error| failed(io::Error::other(error)))?;
            let mut map = DmaMap {
                argsz: size_of::<DmaMap>() as u32,
                flags: abi::DMA_READ | abi::DMA_WRITE,
                vaddr: host as u64,
                iova: address.0,
                size: bytes,
            };
            // SAFETY: the structure is as long as it says; the memory stays mapped as long
            // as the process lives.
            unsafe { request(self.fd.as_raw_fd(), abi::VFIO_IOMMU_MAP_DMA, &raw mut map) }
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// A KVM without it still runs devices whose accesses are coherent.
fn kvm_device(vm: &VmFd) -> Option<DeviceFd> {
    let mut device = kvm_create_device {
        type_: kvm_device_type_KVM_DEV_TYPE_VFIO,
        fd: 0,
        flags: 0,
    };
    match vm.create_device(&mut device) {
        Ok(device) => Some(device),
        Err(error) => {
            tracing::warn!(%error, "KVM does not take VFIO groups");
            None
        }
    }
}

impl Group {
    fn device(&self, address: &str) -> Result<VfioHardware, VfioError> {
        let no_device = |source| VfioError::NoDevice {
            address: address.to_owned(),
            source,
        };
        let name = CString::new(address).map_err(|error| no_device(error.into()))?;
        let raw = self.fd.as_raw_fd();
        // SAFETY: the request reads a C string.
        let fd = unsafe { request(raw, abi::VFIO_GROUP_GET_DEVICE_FD, name.as_ptr().cast_mut()) }
            .map_err(no_device)?;
        // SAFETY: the descriptor is new and owned by the result alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        VfioHardware::new(fd, address)
    }
}
