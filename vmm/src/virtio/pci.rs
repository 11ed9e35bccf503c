//! The PCI transport (virtio 1.2 §4.1): capabilities, BAR layout, doorbells, activation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::common::{Action, CommonConfig};
use super::device::{Activation, DeviceFault, VirtioDevice};
use super::interrupt::VirtioInterrupt;
use super::queue::VirtQueue;
use super::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};
use crate::events::{LogBudget, chain};
use crate::interrupts::{InterruptController, InterruptError};
use crate::memory::GuestMemory;
use crate::pci::{
    BarSpace, BarWindow, Capability, ConfigSpace, HeaderIds, MsixTable, PciDevice, PciRoot, Place,
    RootError,
};

/// Size of BAR 0, which holds all structures.
pub const BAR_BYTES: u32 = 0x8000;
const COMMON: u64 = 0x0000;
/// Offset of device_status in the common configuration.
const COMMON_STATUS: u64 = 20;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const MSIX_TABLE: u64 = 0x4000;
const MSIX_PENDING: u64 = 0x6000;
const REGION_BYTES: u64 = 0x1000;
const NOTIFY_MULTIPLIER: u32 = 4;

const VIRTIO_VENDOR: u16 = 0x1af4;
const MODERN_DEVICE_BASE: u16 = 0x1040;
const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSIX: u8 = 0x11;
const CONFIG_TYPE_PCI: u8 = 5;

/// The transport of a device could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum PciSetupError {
    /// No place on the bus.
    #[error(transparent)]
    Root(#[from] RootError),
    /// No interrupts.
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
    /// An eventfd could not be made.
    #[error("Failed to create a doorbell")]
    Doorbell(#[source] std::io::Error),
    /// The capability list does not fit.
    #[error("The capabilities do not fit into configuration space")]
    Capabilities,
}

/// Turns guest writes to an address into eventfd signals.
pub trait Doorbells: Send + Sync {
    /// Writes of any width and value to `address` signal `event`.
    fn connect(&self, address: u64, event: &EventFd) -> Result<(), kvm_ioctls::Error>;
    /// Undoes it.
    fn disconnect(&self, address: u64, event: &EventFd) -> Result<(), kvm_ioctls::Error>;
}

/// ioeventfds of KVM.
pub struct KvmDoorbells(pub Arc<VmFd>);

impl Doorbells for KvmDoorbells {
    fn connect(&self, address: u64, event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        self.0
            .register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
    }
    fn disconnect(&self, address: u64, event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        self.0
            .unregister_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
    }
}

struct State {
    config: ConfigSpace,
    common: CommonConfig,
    active: bool,
    doorbells_at: Option<u64>,
    msix_offset: usize,
    pci_access_offset: usize,
}

/// A virtio device on the PCI bus.
pub struct VirtioPciDevice {
    state: Mutex<State>,
    device: Arc<Mutex<dyn VirtioDevice>>,
    interrupt: Arc<VirtioInterrupt>,
    kicks: Vec<EventFd>,
    doorbells: Arc<dyn Doorbells>,
    memory: GuestMemory,
    window: BarWindow,
    logs: LogBudget,
}

impl VirtioPciDevice {
    /// Puts `device` on the bus.
    pub fn attach(
        root: &mut PciRoot,
        device: Arc<Mutex<dyn VirtioDevice>>,
        controller: Arc<dyn InterruptController>,
        doorbells: Arc<dyn Doorbells>,
        memory: GuestMemory,
    ) -> Result<Arc<Self>, PciSetupError> {
        let place = root.reserve(BarSpace::Low, u64::from(BAR_BYTES))?;
        let this = Arc::new(Self::new(&place, device, controller, doorbells, memory)?);
        root.add(
            vec![(0, place.window)],
            Arc::clone(&this) as Arc<dyn PciDevice>,
        )?;
        Ok(this)
    }

    fn new(
        place: &Place,
        device: Arc<Mutex<dyn VirtioDevice>>,
        controller: Arc<dyn InterruptController>,
        doorbells: Arc<dyn Doorbells>,
        memory: GuestMemory,
    ) -> Result<Self, PciSetupError> {
        let (device_type, features, sizes) = {
            let device = device.lock().unwrap_or_else(PoisonError::into_inner);
            (
                device.device_type(),
                device.features(),
                device.queue_sizes().to_vec(),
            )
        };
        let kicks = sizes
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK))
            .collect::<Result<Vec<_>, _>>()
            .map_err(PciSetupError::Doorbell)?;
        // One vector per queue and one for configuration changes.
        let vectors = sizes.len() as u16 + 1;
        let interrupt = Arc::new(VirtioInterrupt::new(
            MsixTable::new(vectors, controller)?,
            sizes.len(),
        ));
        let features = features | F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC;
        let common = CommonConfig::new(features, &sizes, Arc::clone(&interrupt));
        let mut config = config_space(device_type);
        config.add_bar0(place.address as u32, BAR_BYTES);
        let (msix_offset, pci_access_offset) = add_capabilities(&mut config, vectors, sizes.len())
            .ok_or(PciSetupError::Capabilities)?;
        let state = State {
            config,
            common,
            active: false,
            doorbells_at: None,
            msix_offset,
            pci_access_offset,
        };
        Ok(Self {
            state: Mutex::new(state),
            device,
            interrupt,
            kicks,
            doorbells,
            memory,
            window: place.window.clone(),
            logs: LogBudget::default(),
        })
    }

    /// The doorbells by queue.
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// Its interrupts.
    pub fn interrupt(&self) -> &Arc<VirtioInterrupt> {
        &self.interrupt
    }

    /// The device behind it.
    pub fn device(&self) -> &Arc<Mutex<dyn VirtioDevice>> {
        &self.device
    }

    fn lock_device(&self) -> MutexGuard<'_, dyn VirtioDevice + 'static> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn activate(&self, state: &mut State) -> Result<(), DeviceFault> {
        let features = state.common.driver_features();
        let queues = state
            .common
            .build_queues(features & F_EVENT_IDX != 0)
            .map_err(DeviceFault::MissingQueue)?;
        let mut ready = Vec::new();
        for (index, queue) in queues.into_iter().enumerate() {
            let Some(queue) = queue else {
                ready.push(None);
                continue;
            };
            let kick = self.kicks[index]
                .try_clone()
                .map_err(DeviceFault::host("copy a doorbell"))?;
            let memory = self.memory.clone();
            let interrupt = Arc::clone(&self.interrupt);
            let queue = VirtQueue::new(queue, index, memory, interrupt, Some(kick))
                .map_err(DeviceFault::queue(index))?;
            ready.push(Some(queue));
        }
        self.lock_device().activate(Activation {
            memory: self.memory.clone(),
            features,
            queues: ready,
            interrupt: Arc::clone(&self.interrupt),
        })
    }

    /// Connects the doorbells where the BAR lies while the device is active.
    fn place_doorbells(&self, state: &mut State) {
        let wanted = if state.active {
            state.config.memory_bar()
        } else {
            None
        };
        if state.doorbells_at == wanted {
            return;
        }
        for (base, connect) in [(state.doorbells_at, false), (wanted, true)] {
            let Some(base) = base else { continue };
            for (index, kick) in (0u64..).zip(&self.kicks) {
                let address = base.wrapping_add(NOTIFY + index * u64::from(NOTIFY_MULTIPLIER));
                let outcome = if connect {
                    self.doorbells.connect(address, kick)
                } else {
                    self.doorbells.disconnect(address, kick)
                };
                if let Err(error) = outcome {
                    // Writes then reach write_bar, which rings the doorbell itself.
                    if self.logs.spend() {
                        tracing::warn!(%error, address, connect, "Failed to move a doorbell");
                    }
                }
            }
        }
        state.doorbells_at = wanted;
    }

    fn act(&self, state: &mut State, action: Action) {
        match action {
            Action::None => return,
            Action::Activate => {
                state.active = true;
                if let Err(fault) = self.activate(state) {
                    let mut device = self.lock_device();
                    if self.logs.spend() {
                        tracing::warn!(device = device.name(), error = %chain(&fault), "Device refused its driver");
                    }
                    device.reset();
                    drop(device);
                    self.interrupt.raise_needs_reset();
                }
            }
            Action::Reset => {
                if std::mem::take(&mut state.active) {
                    self.lock_device().reset();
                }
                state.common.reset();
            }
        }
        self.place_doorbells(state);
    }

    /// The window of VIRTIO_PCI_CAP_PCI_CFG (virtio 1.2 §4.1.4.9): (BAR offset, width).
    fn pci_access(&self, state: &State) -> Option<(u64, usize)> {
        let base = state.pci_access_offset;
        let bar = state.config.u16(base + 4) & 0xff;
        let (offset, length) = (state.config.u32(base + 8), state.config.u32(base + 12));
        (bar == 0 && matches!(length, 1 | 2 | 4) && offset % length == 0)
            .then_some((u64::from(offset), length as usize))
    }

    fn is_pci_access(state: &State, offset: usize) -> bool {
        (state.pci_access_offset + 16..state.pci_access_offset + 20).contains(&offset)
    }
}

impl PciDevice for VirtioPciDevice {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let state = self.lock_state();
        if Self::is_pci_access(&state, offset) {
            let target = self.pci_access(&state);
            drop(state);
            if let Some((bar_offset, width)) = target.filter(|(_, width)| *width <= data.len()) {
                self.read_bar(0, bar_offset, &mut data[..width]);
            }
            return;
        }
        state.config.read(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        let mut state = self.lock_state();
        if Self::is_pci_access(&state, offset) {
            let target = self.pci_access(&state);
            drop(state);
            if let Some((bar_offset, width)) = target.filter(|(_, width)| *width <= data.len()) {
                self.write_bar(0, bar_offset, &data[..width]);
            }
            return;
        }
        if state.config.write(offset, data).bar_changed {
            self.window.set(state.config.memory_bar());
            self.place_doorbells(&mut state);
        }
        let control = state.config.u16(state.msix_offset + 2);
        if let Err(error) = self.interrupt.msix().set_control(control)
            && self.logs.spend()
        {
            tracing::warn!(error = %chain(&error), "Failed to switch MSI-X");
        }
    }

    fn read_bar(&self, _bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let register = offset % REGION_BYTES;
        match offset - register {
            COMMON => self.lock_state().common.read(register, data),
            // The ISR register stays 0: there is no INTx.
            DEVICE => self.lock_device().read_config(register, data),
            _ if (MSIX_TABLE..MSIX_PENDING).contains(&offset) => {
                self.interrupt.msix().read_table(offset - MSIX_TABLE, data);
            }
            MSIX_PENDING => self.interrupt.msix().read_pending(register, data),
            _ => {}
        }
    }

    fn describe(&self) -> String {
        let name = self.lock_device().name().to_owned();
        let state = self.lock_state();
        let mut status = [0];
        state.common.read(COMMON_STATUS, &mut status);
        format!(
            "virtio {name:?} status {:#04x} features {:#x} active {} queues {}",
            status[0],
            state.common.driver_features(),
            state.active,
            state.common.describe_queues()
        )
    }

    fn write_bar(&self, _bar: usize, offset: u64, data: &[u8]) {
        let register = offset % REGION_BYTES;
        match offset - register {
            COMMON => {
                let mut state = self.lock_state();
                let action = state.common.write(register, data);
                self.act(&mut state, action);
            }
            DEVICE => self.lock_device().write_config(register, data),
            NOTIFY => {
                // Only when no ioeventfd is in place.
                let queue = register / u64::from(NOTIFY_MULTIPLIER);
                if let Some(kick) = usize::try_from(queue).ok().and_then(|q| self.kicks.get(q)) {
                    let _ = kick.write(1);
                }
            }
            _ if (MSIX_TABLE..MSIX_PENDING).contains(&offset) => {
                let outcome = self.interrupt.msix().write_table(offset - MSIX_TABLE, data);
                if let Err(error) = outcome
                    && self.logs.spend()
                {
                    tracing::warn!(error = %chain(&error), "Failed to route an MSI-X vector");
                }
            }
            _ => {}
        }
    }
}

fn config_space(device_type: u16) -> ConfigSpace {
    // Network controller, SCSI-less storage, or "other".
    let class = match device_type {
        1 => 0x02_0000,
        2 => 0x01_8000,
        _ => 0xff_0000,
    };
    ConfigSpace::new(HeaderIds {
        vendor: VIRTIO_VENDOR,
        device: MODERN_DEVICE_BASE + device_type,
        subsystem_vendor: VIRTIO_VENDOR,
        subsystem: MODERN_DEVICE_BASE + device_type,
        revision: 1,
        class,
    })
}

/// Returns the offsets of the MSI-X and the PCI access capability.
fn add_capabilities(
    config: &mut ConfigSpace,
    vectors: u16,
    queues: usize,
) -> Option<(usize, usize)> {
    let structure = |kind: u8, offset: u64, length: u32, extra: &[u8]| {
        let mut body = vec![16 + extra.len() as u8, kind, 0, 0, 0, 0];
        body.extend_from_slice(&(offset as u32).to_le_bytes());
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(extra);
        let writable = vec![0; body.len()];
        Capability {
            id: CAPABILITY_VENDOR,
            body,
            writable,
        }
    };
    config.add_capability(&structure(1, COMMON, 60, &[]))?;
    let notify_bytes = queues as u32 * NOTIFY_MULTIPLIER;
    config.add_capability(&structure(
        2,
        NOTIFY,
        notify_bytes,
        &NOTIFY_MULTIPLIER.to_le_bytes(),
    ))?;
    config.add_capability(&structure(3, ISR, 1, &[]))?;
    config.add_capability(&structure(4, DEVICE, REGION_BYTES as u32, &[]))?;
    let mut access = structure(CONFIG_TYPE_PCI, 0, 0, &[0; 4]);
    access.writable[2] = 0xff;
    access.writable[6..].fill(0xff);
    let access_offset = config.add_capability(&access)?;
    let mut body = (vectors - 1).to_le_bytes().to_vec();
    body.extend_from_slice(&(MSIX_TABLE as u32).to_le_bytes());
    body.extend_from_slice(&(MSIX_PENDING as u32).to_le_bytes());
    let mut writable = vec![0; body.len()];
    writable[1] = 0xc0;
    let msix = Capability {
        id: CAPABILITY_MSIX,
        body,
        writable,
    };
    Some((config.add_capability(&msix)?, access_offset))
}

#[cfg(test)]
mod tests;
