//! Interrupt lines and messages: irqfds of the in-kernel irqchip and its routing table.
//!
//! KVM takes the routing table only as a whole, and replacing it is slow, so a route is
//! written only when it differs from the one in place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use crate::layout::IOAPIC_PINS;

#[cfg(any(test, feature = "hostile"))]
#[allow(clippy::unwrap_used, dead_code, reason = "code of tests")]
pub(crate) mod fake;

/// Most interrupt numbers that KVM routes.
pub const MAX_GSIS: u32 = 4096;

/// Interrupts could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InterruptError {
    /// All interrupt numbers are taken.
    #[error("No free interrupt number: all {MAX_GSIS} are in use")]
    Exhausted,
    /// KVM refused the routing table.
    #[error("Failed to set the interrupt routing table")]
    Routing(#[source] kvm_ioctls::Error),
    /// The table could not be built.
    #[error("Failed to build an interrupt routing table of {0} entries")]
    Table(usize),
    /// KVM refused an irqfd.
    #[error("Failed to connect or disconnect the irqfd of interrupt {gsi}")]
    IrqFd {
        /// Interrupt number.
        gsi: u32,
        /// Cause.
        #[source]
        source: kvm_ioctls::Error,
    },
}

/// Address and data of one message-signalled interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MsiMessage {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// What a device needs from the interrupt controller.
pub trait InterruptController: Send + Sync {
    /// Takes a number for a message-signalled interrupt.
    fn allocate(&self) -> Result<u32, InterruptError>;
    /// Routes `gsi` to `message`. Cheap when nothing changes.
    fn route(&self, gsi: u32, message: MsiMessage) -> Result<(), InterruptError>;
    /// Makes a write to `event` raise `gsi`.
    fn connect(&self, gsi: u32, event: &EventFd) -> Result<(), InterruptError>;
    /// Undoes it.
    fn disconnect(&self, gsi: u32, event: &EventFd) -> Result<(), InterruptError>;
    /// Makes a write to `event` raise the level-triggered `gsi`; when the guest has served
    /// it, the level falls and `served` is signalled.
    fn connect_level(
        &self,
        gsi: u32,
        event: &EventFd,
        served: &EventFd,
    ) -> Result<(), InterruptError>;
}

struct Table {
    next: u32,
    messages: BTreeMap<u32, MsiMessage>,
}

/// The irqchip of KVM.
pub struct KvmInterrupts {
    vm: Arc<VmFd>,
    table: Mutex<Table>,
}

impl KvmInterrupts {
    /// The controller of `vm`, whose irqchip exists already.
    pub fn new(vm: Arc<VmFd>) -> Self {
        let table = Table {
            next: IOAPIC_PINS,
            messages: BTreeMap::new(),
        };
        Self {
            vm,
            table: Mutex::new(table),
        }
    }

    fn write_table(&self, messages: &BTreeMap<u32, MsiMessage>) -> Result<(), InterruptError> {
        let entries: Vec<_> = (0..IOAPIC_PINS)
            .map(ioapic_entry)
            .chain(
                messages
                    .iter()
                    .map(|(gsi, message)| msi_entry(*gsi, *message)),
            )
            .collect();
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| InterruptError::Table(entries.len()))?;
        self.vm
            .set_gsi_routing(&table)
            .map_err(InterruptError::Routing)
    }
}

fn ioapic_entry(pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi: pin,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..Default::default()
    };
    entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
    entry.u.irqchip.pin = pin;
    entry
}

fn msi_entry(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi.address_lo = message.address as u32;
    entry.u.msi.address_hi = (message.address >> 32) as u32;
    entry.u.msi.data = message.data;
    entry
}

impl InterruptController for KvmInterrupts {
    fn allocate(&self) -> Result<u32, InterruptError> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.next >= MAX_GSIS {
            return Err(InterruptError::Exhausted);
        }
        table.next += 1;
        Ok(table.next - 1)
    }

    fn route(&self, gsi: u32, message: MsiMessage) -> Result<(), InterruptError> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.messages.get(&gsi) == Some(&message) {
            return Ok(());
        }
        table.messages.insert(gsi, message);
        self.write_table(&table.messages)
    }

    fn connect(&self, gsi: u32, event: &EventFd) -> Result<(), InterruptError> {
        self.vm
            .register_irqfd(event, gsi)
            .map_err(|source| InterruptError::IrqFd { gsi, source })
    }

    fn disconnect(&self, gsi: u32, event: &EventFd) -> Result<(), InterruptError> {
        self.vm
            .unregister_irqfd(event, gsi)
            .map_err(|source| InterruptError::IrqFd { gsi, source })
    }

    fn connect_level(
        &self,
        gsi: u32,
        event: &EventFd,
        served: &EventFd,
    ) -> Result<(), InterruptError> {
        self.vm
            .register_irqfd_with_resample(event, served, gsi)
            .map_err(|source| InterruptError::IrqFd { gsi, source })
    }
}
