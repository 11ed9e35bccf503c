//! The device on the guest's PCI bus.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::abi::{BARS, CONFIG_REGION, INTX};
use super::bars::{Bar, mapped_areas, memory_bars};
use super::container::VfioError;
use super::hardware::{Hardware, Region};
use super::interrupts::{Interrupts, SwitchError, Wanted};
use super::mappings::{Mapping, MemorySlots, SlotNumbers};
use super::metrics::VfioMetrics;
use super::space::{MsixLayout, Space};
use crate::events::{LogBudget, chain};
use crate::interrupts::InterruptController;
use crate::pci::{BarWindow, PciDevice, PciRoot, RootError};

const BAR0: u64 = 0x10;

/// A device cannot be put on the guest's bus.
#[derive(Debug, thiserror::Error)]
pub enum VfioSetupError {
    /// The host does not give it.
    #[error(transparent)]
    Vfio(#[from] VfioError),
    /// The bus has no room.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its interrupts cannot be set up.
    #[error(transparent)]
    Interrupts(#[from] SwitchError),
    /// Its registers or memory are out of reach.
    #[error("Failed to {doing} of a device")]
    Reach {
        /// What was being done.
        doing: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

fn reach(doing: &'static str) -> impl Fn(io::Error) -> VfioSetupError {
    move |source| VfioSetupError::Reach { doing, source }
}

/// What devices share.
pub struct Shared {
    /// Interrupts of the guest.
    pub controller: Arc<dyn InterruptController>,
    /// Memory slots of the guest.
    pub slots: Arc<dyn MemorySlots>,
    /// Which of them are free.
    pub numbers: SlotNumbers,
}

impl Shared {
    /// No slot is in use by BARs yet.
    pub fn new(controller: Arc<dyn InterruptController>, slots: Arc<dyn MemorySlots>) -> Self {
        Self {
            controller,
            slots,
            numbers: SlotNumbers::default(),
        }
    }
}

struct State {
    space: Space,
    interrupts: Interrupts,
    mappings: Vec<Mapping>,
}

/// See the module.
pub struct VfioDevice {
    name: String,
    hardware: Arc<dyn Hardware>,
    slots: Arc<dyn MemorySlots>,
    bars: Vec<(Bar, BarWindow)>,
    msix: Option<MsixLayout>,
    state: Mutex<State>,
    metrics: Arc<VfioMetrics>,
    logs: LogBudget,
}

/// A part of a BAR that is trapped.
enum Part {
    Table(u64),
    Pending(u64),
    Device,
}

impl VfioDevice {
    /// Whether a device has a line interrupt.
    pub fn has_intx(hardware: &dyn Hardware) -> bool {
        hardware.interrupts(INTX) > 0
    }

    /// Resets a device and puts it on the bus. `intx` is the IOAPIC pin of its line interrupt.
    pub fn attach(
        root: &mut PciRoot,
        name: &str,
        hardware: Arc<dyn Hardware>,
        intx: Option<u32>,
        shared: &mut Shared,
        metrics: Arc<VfioMetrics>,
    ) -> Result<Arc<Self>, VfioSetupError> {
        reset(name, hardware.as_ref());
        let regions: Vec<Region> = (0..BARS as u32).map(|bar| hardware.region(bar)).collect();
        let registers = bar_registers(hardware.as_ref()).map_err(reach("read the BARs"))?;
        let mut bars = memory_bars(registers, &regions);
        let mut space = Space::new(Arc::clone(&hardware), &bars, intx.is_some())
            .map_err(reach("read the configuration space"))?;
        let msix = space.msix();
        // The largest first leaves no gaps.
        bars.sort_by_key(|bar| std::cmp::Reverse(bar.size));
        let mut placed = Vec::new();
        let mut mappings = Vec::new();
        for bar in bars {
            let place = root.reserve(bar.space(), bar.size)?;
            space.place_bar(&bar, place.address);
            for (offset, length) in mapped_areas(&regions[bar.index].mappable, &trapped(msix, &bar))
            {
                let host = hardware
                    .map(bar.index as u32, offset, length)
                    .map_err(reach("map a BAR"))?;
                mappings.push(Mapping {
                    bar: bar.index,
                    offset,
                    length,
                    host,
                    slot: shared.numbers.take(),
                    guest: None,
                });
            }
            placed.push((bar, place.window));
        }
        let interrupts = Interrupts::new(
            Arc::clone(&hardware),
            Arc::clone(&shared.controller),
            intx,
            space.msi_vectors(),
            msix.map_or(0, |layout| layout.vectors),
        )?;
        let device = Arc::new(Self {
            name: name.to_owned(),
            hardware,
            slots: Arc::clone(&shared.slots),
            bars: placed,
            msix,
            state: Mutex::new(State {
                space,
                interrupts,
                mappings,
            }),
            metrics,
            logs: LogBudget::default(),
        });
        device.follow(&mut device.lock());
        let windows = device
            .bars
            .iter()
            .map(|(bar, window)| (bar.index, window.clone()))
            .collect();
        root.add(windows, Arc::clone(&device) as Arc<dyn PciDevice>)?;
        tracing::info!(
            device = name,
            bars = device.bars.len(),
            "Device is passed through"
        );
        Ok(device)
    }

    /// The guest is gone: nothing of it stays in the device.
    pub fn shut_down(&self) {
        if let Err(error) = self.lock().interrupts.switch_off() {
            self.failed("switch off interrupts", &chain(&error));
        }
        reset(&self.name, self.hardware.as_ref());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &str, error: &str) {
        self.metrics.errors.add(1);
        if self.logs.spend() {
            tracing::warn!(
                device = self.name,
                doing,
                error,
                "A passed-through device failed"
            );
        }
    }

    /// Brings windows, mappings and interrupts in line with the registers.
    fn follow(&self, state: &mut State) {
        let (decoding, intx_off) = match state.space.decoding_and_intx_off() {
            Ok(both) => both,
            Err(error) => {
                self.failed("read the command register", &chain(&error));
                return;
            }
        };
        for (bar, window) in &self.bars {
            let address = state.space.bar_address(bar);
            let address = (decoding && address != 0).then_some(address);
            window.set(address);
            for mapping in state.mappings.iter_mut().filter(|one| one.bar == bar.index) {
                if let Err(error) = mapping.place(self.slots.as_ref(), address) {
                    self.failed("map a BAR into the guest", &error.to_string());
                }
            }
        }
        let wanted = Wanted {
            intx_off,
            msi: state.space.msi_registers(),
            msix_control: state.space.msix_control(),
        };
        if let Err(error) = state.interrupts.update(&wanted) {
            self.failed("switch interrupts", &chain(&error));
        }
    }

    fn part(&self, bar: usize, offset: u64) -> Part {
        let within = |place: (usize, u64), bytes: u64| {
            let inside = offset.checked_sub(place.1)?;
            (place.0 == bar && inside < bytes).then_some(inside)
        };
        let Some(layout) = self.msix else {
            return Part::Device;
        };
        if let Some(inside) = within(layout.table, layout.table_bytes()) {
            Part::Table(inside)
        } else if let Some(inside) = within(layout.pending, layout.pending_bytes()) {
            Part::Pending(inside)
        } else {
            Part::Device
        }
    }
}

impl PciDevice for VfioDevice {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        if let Err(error) = self.lock().space.read(offset, data) {
            data.fill(0xff);
            self.failed("read configuration space", &chain(&error));
        }
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        let mut state = self.lock();
        if let Err(error) = state.space.write(offset, data) {
            self.failed("write configuration space", &chain(&error));
        }
        self.follow(&mut state);
    }

    fn read_bar(&self, bar: usize, offset: u64, data: &mut [u8]) {
        self.metrics.trapped_reads.add(1);
        match self.part(bar, offset) {
            Part::Table(inside) => {
                if let Some(table) = self.lock().interrupts.msix() {
                    table.read_table(inside, data);
                }
            }
            Part::Pending(inside) => {
                if let Some(table) = self.lock().interrupts.msix() {
                    table.read_pending(inside, data);
                }
            }
            Part::Device => {
                if let Err(error) = self.hardware.read(bar as u32, offset, data) {
                    data.fill(0xff);
                    self.failed("read a BAR", &chain(&error));
                }
            }
        }
    }

    fn describe(&self) -> String {
        let state = self.lock();
        let mapped: Vec<String> = state
            .mappings
            .iter()
            .map(|one| {
                let guest = one.guest.map_or("off".to_owned(), |at| format!("{at:#x}"));
                format!(
                    "BAR {}+{:#x} {:#x} {guest}",
                    one.bar, one.offset, one.length
                )
            })
            .collect();
        format!(
            "vfio {:?} interrupts {} mapped [{}]",
            self.name,
            state.interrupts.describe(),
            mapped.join(", ")
        )
    }

    fn write_bar(&self, bar: usize, offset: u64, data: &[u8]) {
        self.metrics.trapped_writes.add(1);
        match self.part(bar, offset) {
            Part::Table(inside) => {
                let mut state = self.lock();
                let outcome = state
                    .interrupts
                    .msix()
                    .map_or(Ok(()), |table| table.write_table(inside, data));
                if let Err(error) = outcome {
                    self.failed("route an MSI-X vector", &chain(&error));
                }
            }
            Part::Pending(_) => {}
            Part::Device => {
                if let Err(error) = self.hardware.write(bar as u32, offset, data) {
                    self.failed("write a BAR", &chain(&error));
                }
            }
        }
    }
}

/// A device without a reset of its own was reset by vfio-pci, as far as it can be, when its
/// descriptor was opened, and is again when it is closed.
fn reset(name: &str, hardware: &dyn Hardware) {
    match hardware.reset() {
        Ok(true) => {}
        Ok(false) => tracing::info!(device = name, "The device has no reset of its own"),
        Err(error) => tracing::warn!(device = name, %error, "Failed to reset a device"),
    }
}

fn bar_registers(hardware: &dyn Hardware) -> io::Result<[u32; BARS]> {
    let mut registers = [0; BARS];
    for (index, register) in (0u64..).zip(&mut registers) {
        let mut bytes = [0; 4];
        hardware.read(CONFIG_REGION, BAR0 + index * 4, &mut bytes)?;
        *register = u32::from_le_bytes(bytes);
    }
    Ok(registers)
}

/// What of a BAR the VMM itself answers, in order of the offsets.
fn trapped(msix: Option<MsixLayout>, bar: &Bar) -> Vec<(u64, u64)> {
    let mut parts: Vec<_> = msix
        .iter()
        .flat_map(|layout| {
            [
                (layout.table, layout.table_bytes()),
                (layout.pending, layout.pending_bytes()),
            ]
        })
        .filter(|((index, _), _)| *index == bar.index)
        .map(|((_, offset), bytes)| (offset, bytes))
        .collect();
    parts.sort_unstable();
    parts
}

#[cfg(test)]
mod tests;
