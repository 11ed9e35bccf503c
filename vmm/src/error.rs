//! Why a VM could not be built.

use std::io;

/// The VMM failed before the guest ran.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum VmmError {
    #[error("The configuration is invalid: {0}")]
    Config(String),
    #[error("Failed to read the configuration")]
    Parse(#[from] serde_json::Error),
    #[error(transparent)]
    Descriptor(#[from] crate::descriptors::DescriptorError),
    #[error("The KVM descriptor is not /dev/kvm with API version 12")]
    NotKvm,
    #[error("Failed to {doing}")]
    Kvm {
        doing: &'static str,
        #[source]
        source: kvm_ioctls::Error,
    },
    #[error("Failed to {doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Memory(#[from] crate::memory::MemoryError),
    #[error(transparent)]
    Boot(#[from] crate::boot::BootError),
    #[error(transparent)]
    Acpi(#[from] crate::acpi::AcpiError),
    #[error(transparent)]
    Interrupt(#[from] crate::interrupts::InterruptError),
    #[error(transparent)]
    Pci(#[from] crate::virtio::PciSetupError),
    #[error(transparent)]
    Vcpu(#[from] crate::cpu::VcpuError),
    #[error(transparent)]
    Mac(#[from] crate::devices::net::MacError),
    #[error("Disk {serial}")]
    Disk {
        serial: String,
        #[source]
        source: crate::devices::block::BackingError,
    },
    #[error("Failed to pass device {id} through")]
    Vfio {
        id: String,
        #[source]
        source: crate::devices::vfio::VfioSetupError,
    },
    #[error("Failed to set up VFIO")]
    VfioContainer(#[from] crate::devices::vfio::VfioError),
    #[error(transparent)]
    Cpuid(#[from] crate::cpu::CpuidError),
    #[error(transparent)]
    Fs(#[from] crate::devices::fs::FsError),
    #[error(transparent)]
    Jail(#[from] crate::jail::privileges::JailError),
    #[error(transparent)]
    Seccomp(#[from] crate::jail::seccomp::SeccompError),
}

impl VmmError {
    /// A closure for a failed KVM request.
    pub fn kvm(doing: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { doing, source }
    }

    /// A closure for a failed system call.
    pub fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
