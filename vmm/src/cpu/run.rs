//! The loop of a vCPU thread, and how it is made to leave KVM_RUN.

use std::cell::Cell;
use std::ptr;
use std::sync::Arc;

use hull_vmm_client::exit::ExitReason;
use kvm_bindings::kvm_run;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::cpuid::{CpuidError, Template};
use super::gate::Gate;
use super::position::Position;
use super::registers::{RegisterError, set_up};
use crate::boot::Entry;
use crate::devices::power::{Power, PowerEvent};
use crate::devices::pvpanic::{PanicEvent, Pvpanic};
use crate::devices::serial::{Console, SerialPort};
use crate::exit::ExitSignal;
use crate::layout::{COM1_PORT, PVPANIC_PORT};
use crate::metrics::Counter;
use crate::pci::PciRoot;

thread_local! {
    /// The shared page of the vCPU that this thread runs, for the signal handler.
    static RUN_PAGE: Cell<*mut kvm_run> = const { Cell::new(ptr::null_mut()) };
}

/// A vCPU could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// KVM_CREATE_VCPU failed.
    #[error("Failed to create vCPU {index}")]
    Create {
        /// Its number.
        index: u8,
        /// Cause.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// CPUID.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// Registers.
    #[error(transparent)]
    Registers(#[from] RegisterError),
}

/// What vCPUs reach by port and memory accesses, and what their exits mean.
pub struct Buses {
    /// First serial port.
    pub serial: SerialPort,
    /// Its output, which may show a panic.
    pub console: Console,
    /// Everything that is mapped into memory.
    pub pci: PciRoot,
    /// How the VM ends.
    pub exit: Arc<ExitSignal>,
    /// Where vCPUs stand while the VM is paused.
    pub gate: Gate,
    /// Exits to the VMM by kind.
    pub exits: ExitCounters,
}

/// Exits of all vCPUs to the VMM.
#[derive(Debug, Default)]
pub struct ExitCounters {
    port: Counter,
    mmio: Counter,
    other: Counter,
}

impl ExitCounters {
    /// Port accesses, memory accesses to devices, and everything else.
    pub fn by_kind(&self) -> [(&'static str, &Counter); 3] {
        [
            ("port", &self.port),
            ("mmio", &self.mmio),
            ("other", &self.other),
        ]
    }
}

impl Buses {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        let value = match port {
            COM1_PORT..=0x3ff => Some(self.serial.read((port - COM1_PORT) as u8)),
            PVPANIC_PORT => Some(Pvpanic::read()),
            _ => Power::read(port),
        };
        if let (Some(value), Some(first)) = (value, data.first_mut()) {
            *first = value;
        }
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        for value in data {
            match port {
                COM1_PORT..=0x3ff => self.serial.write((port - COM1_PORT) as u8, *value),
                PVPANIC_PORT => match Pvpanic::write(*value) {
                    Some(PanicEvent::Panicked) => {
                        self.exit.end(
                            ExitReason::GuestPanic,
                            "The guest kernel panicked (pvpanic)",
                        );
                    }
                    Some(PanicEvent::CrashLoaded) => {
                        self.exit.end(
                            ExitReason::GuestPanic,
                            "The guest kernel panicked and loaded its crash kernel (pvpanic)",
                        );
                    }
                    None => {}
                },
                _ => match Power::write(port, *value) {
                    Some(PowerEvent::Off) => self.ended("The guest powered off"),
                    Some(PowerEvent::Reset) => self.ended("The guest rebooted"),
                    None => {}
                },
            }
        }
    }

    /// Power off and reset are a panic when the console shows one: guests reboot after it.
    fn ended(&self, message: &str) {
        self.console.flush();
        if self.console.panic_seen() {
            self.exit.end(
                ExitReason::GuestPanic,
                format!("{message} after its kernel panicked"),
            );
        } else {
            self.exit.end(ExitReason::GuestShutdown, message);
        }
    }
}

/// One vCPU.
pub struct Vcpu {
    fd: VcpuFd,
    index: u8,
}

impl Vcpu {
    /// Makes the `count` vCPUs of a VM, ready to start at `entry`.
    pub fn create_all(
        kvm: &Kvm,
        vm: &VmFd,
        count: u8,
        entry: Entry,
    ) -> Result<Vec<Self>, VcpuError> {
        let template = Template::new(kvm)?;
        let create = |index: u8| {
            let fd = vm
                .create_vcpu(u64::from(index))
                .map_err(|source| VcpuError::Create { index, source })?;
            template.apply(&fd, index, count)?;
            set_up(&fd, index, entry)?;
            Ok(Self { fd, index })
        };
        (0..count).map(create).collect()
    }

    /// Its number.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Runs the guest until the VM ends.
    pub fn run(mut self, buses: &Buses) {
        RUN_PAGE.set(self.fd.get_kvm_run());
        while !buses.exit.is_stopping() {
            if buses.gate.pass(self.index, || self.position()) {
                // The guest's watchdogs do not count the pause. A guest without the clock
                // of KVM has none to tell.
                let _ = self.fd.kvmclock_ctrl();
                continue;
            }
            if !self.step(buses) {
                break;
            }
        }
        RUN_PAGE.set(ptr::null_mut());
    }

    fn position(&self) -> String {
        match Position::read(&self.fd, self.index) {
            Ok(position) => position.to_string(),
            Err(error) => format!("vCPU {} cannot be asked: {error}", self.index),
        }
    }

    /// Runs the guest up to its next exit; false when this vCPU is at its end.
    fn step(&mut self, buses: &Buses) -> bool {
        let index = self.index;
        let outcome = self.fd.run();
        let (counter, goes_on) = match outcome {
            Ok(VcpuExit::IoOut(port, data)) => {
                buses.port_write(port, data);
                (&buses.exits.port, true)
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                buses.port_read(port, data);
                (&buses.exits.port, true)
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                buses.pci.read(address, data);
                (&buses.exits.mmio, true)
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                buses.pci.write(address, data);
                (&buses.exits.mmio, true)
            }
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::Hlt) => {
                (&buses.exits.other, true)
            }
            Ok(VcpuExit::Shutdown) => {
                buses.ended("The guest reset itself by a triple fault");
                (&buses.exits.other, false)
            }
            Ok(VcpuExit::SystemEvent(kind, _)) => {
                buses.ended(&format!("The guest ended (system event {kind})"));
                (&buses.exits.other, false)
            }
            Ok(VcpuExit::FailEntry(reason, _)) => {
                let message =
                    format!("vCPU {index} could not enter the guest (hardware reason {reason:#x})");
                buses.exit.end(ExitReason::VmmError, message);
                (&buses.exits.other, false)
            }
            Ok(other) => {
                let message =
                    format!("vCPU {index} left the guest for an unknown reason: {other:?}");
                buses.exit.end(ExitReason::VmmError, message);
                (&buses.exits.other, false)
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                self.fd.set_kvm_immediate_exit(0);
                (&buses.exits.other, true)
            }
            Err(error) => {
                buses.exit.end(
                    ExitReason::VmmError,
                    format!("vCPU {index} failed to run: {error}"),
                );
                (&buses.exits.other, false)
            }
        };
        counter.add(1);
        goes_on
    }
}

/// The signal that makes a vCPU thread leave KVM_RUN.
pub fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let page = RUN_PAGE.get();
    if !page.is_null() {
        // A signal that comes before KVM_RUN would be lost; the flag makes KVM_RUN return
        // at once.
        // SAFETY: the page is mapped as long as RUN_PAGE names it, and only this thread and
        // the kernel touch it.
        unsafe { ptr::addr_of_mut!((*page).immediate_exit).write_volatile(1) };
    }
}

/// Installs the handler of [`kick_signal`] for the process.
pub fn install_kick_handler() -> std::io::Result<()> {
    register_signal_handler(kick_signal(), on_kick)
        .map_err(|error| std::io::Error::from_raw_os_error(error.errno()))
}
