//! Mapped parts of BARs as memory slots of KVM: the guest reaches them without an exit.

use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

/// The request that a vCPU makes when the guest moves a BAR (linux/kvm.h).
pub const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
/// First slot of BARs; guest RAM has the ones before.
const FIRST_SLOT: u32 = 64;

/// Memory slots of the VM.
pub trait MemorySlots: Send + Sync {
    /// Shows `length` bytes at `host` of this process to the guest at `guest`.
    fn set(&self, slot: u32, guest: u64, host: u64, length: u64) -> Result<(), kvm_ioctls::Error>;
    /// Empties a slot.
    fn clear(&self, slot: u32) -> Result<(), kvm_ioctls::Error>;
}

/// Those of KVM.
pub struct KvmMemorySlots(pub Arc<VmFd>);

impl MemorySlots for KvmMemorySlots {
    fn set(&self, slot: u32, guest: u64, host: u64, length: u64) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: guest,
            memory_size: length,
            userspace_addr: host,
        };
        // SAFETY: the host mapping is one of a BAR, which is never unmapped.
        unsafe { self.0.set_user_memory_region(region) }
    }

    fn clear(&self, slot: u32) -> Result<(), kvm_ioctls::Error> {
        self.set(slot, 0, 0, 0)
    }
}

/// Gives out slot numbers.
#[derive(Debug)]
pub struct SlotNumbers(u32);

impl Default for SlotNumbers {
    fn default() -> Self {
        Self(FIRST_SLOT)
    }
}

impl SlotNumbers {
    /// The next one.
    pub fn take(&mut self) -> u32 {
        self.0 += 1;
        self.0 - 1
    }
}

/// One mapped part of a BAR.
#[derive(Debug)]
pub struct Mapping {
    /// Number of the BAR.
    pub bar: usize,
    /// Offset in the BAR.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Address in this process.
    pub host: u64,
    /// Memory slot.
    pub slot: u32,
    /// Where the guest sees it now.
    pub guest: Option<u64>,
}

impl Mapping {
    /// Follows the BAR to `base`, or takes it away. A place that KVM refuses, because RAM is
    /// there, leaves it unmapped: accesses are trapped then.
    pub fn place(
        &mut self,
        slots: &dyn MemorySlots,
        base: Option<u64>,
    ) -> Result<(), kvm_ioctls::Error> {
        let wanted = base.and_then(|base| base.checked_add(self.offset));
        if wanted == self.guest {
            return Ok(());
        }
        if self.guest.take().is_some() {
            slots.clear(self.slot)?;
        }
        if let Some(guest) = wanted {
            slots.set(self.slot, guest, self.host, self.length)?;
            self.guest = Some(guest);
        }
        Ok(())
    }
}
