//! The 8250 at COM1, output only.

use std::sync::{Mutex, PoisonError};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::console::Console;

struct Line(EventFd);

impl Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.write(1)
    }
}

/// See the module.
pub struct SerialPort {
    serial: Mutex<Serial<Line, NoEvents, Console>>,
}

impl SerialPort {
    /// `interrupt` is the irqfd of the port's interrupt line.
    pub fn new(interrupt: EventFd, console: Console) -> Self {
        Self {
            serial: Mutex::new(Serial::new(Line(interrupt), console)),
        }
    }

    /// Reads register `offset`.
    pub fn read(&self, offset: u8) -> u8 {
        self.serial
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(offset)
    }

    /// Writes register `offset`.
    pub fn write(&self, offset: u8, value: u8) {
        // It fails when the interrupt is pending already, or with loopback data that nobody
        // reads: nothing that the guest must be told.
        let _ = self
            .serial
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(offset, value);
    }
}
