//! Devices of the host in this VM.

use std::sync::Arc;

use hull_vmm_client::config::VmConfig;
use kvm_ioctls::Kvm;
use vm_memory::GuestMemoryBackend;

use super::Machine;
use crate::acpi::PciResources;
use crate::cpu::physical_address_bits;
use crate::descriptors::Descriptors;
use crate::devices::vfio::{
    Container, KvmMemorySlots, VfioDevice, VfioMetrics, VfioSetupError, VfioShared,
};
use crate::error::VmmError;
use crate::layout::{HIGH_RAM_START, IOAPIC_PINS};

/// First IOAPIC pin of line interrupts; the ones below are those of a PC's own devices.
const FIRST_LINE_PIN: u32 = 16;
/// Where the window above guest RAM may begin.
const HIGH_WINDOW_ALIGNMENT: u64 = 1 << 30;

/// What of the host belongs to the VM until its end.
pub struct Passthrough {
    devices: Vec<Arc<VfioDevice>>,
    line_interrupts: Vec<(u8, u32)>,
    container: Container,
}

impl Passthrough {
    /// Resets the devices: the guest is gone.
    pub fn shut_down(&self) {
        for device in &self.devices {
            device.shut_down();
        }
    }
}

impl Machine {
    /// Adds the devices of the host, after all others.
    pub(super) fn add_passthrough(
        &mut self,
        kvm: &Kvm,
        config: &VmConfig,
        descriptors: &mut Descriptors,
    ) -> Result<(), VmmError> {
        let Some(vfio) = &config.vfio else {
            return Ok(());
        };
        let start = (self.memory.last_addr().0 + 1)
            .max(HIGH_RAM_START)
            .next_multiple_of(HIGH_WINDOW_ALIGNMENT);
        self.pci
            .set_high_room(start, 1 << physical_address_bits(kvm)?.min(63));
        let container = descriptors.take(vfio.container_fd, "VFIO container")?;
        let groups = vfio
            .groups
            .iter()
            .map(|group| descriptors.take(group.fd, "VFIO group"))
            .collect::<Result<Vec<_>, _>>()?;
        let container = Container::new(container, groups, &self.memory, &self.vm)?;
        let slots = Arc::new(KvmMemorySlots(Arc::clone(&self.vm)));
        let mut shared = VfioShared::new(Arc::clone(&self.controller), slots);
        let mut passthrough = Passthrough {
            devices: Vec::new(),
            line_interrupts: Vec::new(),
            container,
        };
        for (index, group) in vfio.groups.iter().enumerate() {
            for device in &group.devices {
                let failed = |source| VmmError::Vfio {
                    id: device.id.clone(),
                    source,
                };
                let hardware = passthrough
                    .container
                    .device(index, &device.address)
                    .map_err(|error| failed(VfioSetupError::from(error)))?;
                let slot = self.pci.next_slot();
                let pins = IOAPIC_PINS - FIRST_LINE_PIN;
                let line = VfioDevice::has_intx(&hardware)
                    .then_some(FIRST_LINE_PIN + u32::from(slot) % pins);
                let metrics = Arc::new(VfioMetrics::default());
                let added = VfioDevice::attach(
                    &mut self.pci,
                    &device.id,
                    Arc::new(hardware),
                    line,
                    &mut shared,
                    Arc::clone(&metrics),
                )
                .map_err(failed)?;
                passthrough
                    .line_interrupts
                    .extend(line.map(|pin| (slot, pin)));
                passthrough.devices.push(added);
                self.metrics.push((device.id.clone(), metrics));
            }
        }
        self.passthrough = Some(passthrough);
        Ok(())
    }

    /// What the guest's tables say about the bus.
    pub(super) fn pci_resources(&self) -> PciResources {
        PciResources {
            high_window: self.pci.high_window(),
            line_interrupts: self
                .passthrough
                .as_ref()
                .map(|passthrough| passthrough.line_interrupts.clone())
                .unwrap_or_default(),
        }
    }
}
