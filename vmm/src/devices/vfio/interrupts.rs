//! Interrupts of a device that is passed through. At any time one kind is on: MSI-X before
//! MSI before INTx. The host signals eventfds that KVM takes as interrupts of the guest;
//! the VMM is not on that way.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::abi::{INTX, MSI, MSIX};
use super::hardware::Hardware;
use super::space::MsiRegisters;
use crate::interrupts::{InterruptController, InterruptError, MsiMessage};
use crate::pci::{MSIX_ENABLE, MsixTable, Vector};

/// The interrupts of a device could not be brought in line with its registers.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// KVM refused.
    #[error(transparent)]
    Kvm(#[from] InterruptError),
    /// The host refused.
    #[error("Failed to {doing} of the device")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

fn host(doing: &'static str) -> impl Fn(io::Error) -> SwitchError {
    move |source| SwitchError::Host { doing, source }
}

/// What the guest set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// INTx is off by the command register.
    pub intx_off: bool,
    /// MSI registers.
    pub msi: MsiRegisters,
    /// MSI-X control register.
    pub msix_control: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Off,
    Intx,
    /// With this many vectors.
    Msi(u32),
    Msix,
}

/// The line interrupt: it stays masked on the host from its signal until the guest has
/// served it.
struct Intx {
    gsi: u32,
    event: EventFd,
    served: EventFd,
}

/// See the module.
pub struct Interrupts {
    hardware: Arc<dyn Hardware>,
    controller: Arc<dyn InterruptController>,
    intx: Option<Intx>,
    msi: Vec<Vector>,
    msix: Option<MsixTable>,
    mode: Mode,
}

impl Interrupts {
    /// All off. `intx` is the IOAPIC pin when the device has a line interrupt.
    pub fn new(
        hardware: Arc<dyn Hardware>,
        controller: Arc<dyn InterruptController>,
        intx: Option<u32>,
        msi_vectors: u32,
        msix_vectors: u16,
    ) -> Result<Self, SwitchError> {
        let event = || EventFd::new(EFD_NONBLOCK).map_err(host("create the events"));
        let intx = match intx {
            Some(gsi) => Some(Intx {
                gsi,
                event: event()?,
                served: event()?,
            }),
            None => None,
        };
        let msi = (0..msi_vectors)
            .map(|_| Vector::new(Arc::clone(&controller)))
            .collect::<Result<_, _>>()?;
        let msix = match msix_vectors {
            0 => None,
            count => Some(MsixTable::new(count, Arc::clone(&controller))?),
        };
        Ok(Self {
            hardware,
            controller,
            intx,
            msi,
            msix,
            mode: Mode::Off,
        })
    }

    /// The MSI-X table that the guest programs.
    pub fn msix(&mut self) -> Option<&mut MsixTable> {
        self.msix.as_mut()
    }

    /// Which kind is on, for people.
    pub fn describe(&self) -> String {
        format!("{:?}", self.mode)
    }

    /// Follows the registers.
    pub fn update(&mut self, wanted: &Wanted) -> Result<(), SwitchError> {
        let mode = if self.msix.is_some() && wanted.msix_control & MSIX_ENABLE != 0 {
            Mode::Msix
        } else if wanted.msi.enabled && !self.msi.is_empty() {
            Mode::Msi(wanted.msi.count)
        } else if self.intx.is_some() && !wanted.intx_off {
            Mode::Intx
        } else {
            Mode::Off
        };
        if let Some(table) = &mut self.msix {
            table.set_control(wanted.msix_control)?;
        }
        self.route_msi(mode, &wanted.msi)?;
        if mode != self.mode {
            self.switch_off()?;
            self.switch_on(mode)?;
        }
        Ok(())
    }

    fn route_msi(&mut self, mode: Mode, registers: &MsiRegisters) -> Result<(), SwitchError> {
        for (index, vector) in (0u32..).zip(&mut self.msi) {
            match mode {
                Mode::Msi(count) if index < count && registers.mask >> index & 1 == 0 => {
                    // A device sends its vector in the low bits of the data.
                    let data = u32::from(registers.data) & !(count - 1) | index;
                    vector.connect(MsiMessage {
                        address: registers.address,
                        data,
                    })?;
                }
                _ => vector.disconnect()?,
            }
        }
        Ok(())
    }

    fn switch_on(&mut self, mode: Mode) -> Result<(), SwitchError> {
        match (mode, &self.intx, &self.msix) {
            (Mode::Msix, _, Some(table)) => {
                let events: Vec<_> = table.vectors().iter().map(Vector::event).collect();
                self.hardware
                    .enable(MSIX, &events)
                    .map_err(host("switch on MSI-X"))?;
            }
            (Mode::Msi(count), _, _) => {
                let events: Vec<_> = self.msi.iter().map(Vector::event).collect();
                let count = events.len().min(count as usize);
                self.hardware
                    .enable(MSI, &events[..count])
                    .map_err(host("switch on MSI"))?;
            }
            (Mode::Intx, Some(intx), _) => {
                self.controller
                    .connect_level(intx.gsi, &intx.event, &intx.served)?;
                let on = self
                    .hardware
                    .enable(INTX, &[&intx.event])
                    .and_then(|()| self.hardware.unmask_by(&intx.served));
                if let Err(error) = on {
                    self.controller.disconnect(intx.gsi, &intx.event)?;
                    return Err(host("switch on INTx")(error));
                }
            }
            _ => {}
        }
        self.mode = mode;
        Ok(())
    }

    /// Switches off what is on.
    pub fn switch_off(&mut self) -> Result<(), SwitchError> {
        let kind = match std::mem::replace(&mut self.mode, Mode::Off) {
            Mode::Off => return Ok(()),
            Mode::Intx => INTX,
            Mode::Msi(_) => MSI,
            Mode::Msix => MSIX,
        };
        self.hardware
            .disable(kind)
            .map_err(host("switch off the interrupts"))?;
        if let (INTX, Some(intx)) = (kind, &self.intx) {
            self.controller.disconnect(intx.gsi, &intx.event)?;
        }
        Ok(())
    }
}
