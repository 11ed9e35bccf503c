//! One ISA port: reading gives the events that are known, writing reports one.

/// The id under which Linux' pvpanic-mmio driver finds the port.
pub const ACPI_HARDWARE_ID: &str = "QEMU0001";
const PANICKED: u8 = 1;
const CRASH_LOADED: u8 = 2;

/// What the guest reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicEvent {
    /// The kernel panicked.
    Panicked,
    /// The kernel panicked and starts its crash kernel.
    CrashLoaded,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pvpanic;

impl Pvpanic {
    /// The events that are understood.
    pub fn read() -> u8 {
        PANICKED | CRASH_LOADED
    }

    /// A report.
    pub fn write(value: u8) -> Option<PanicEvent> {
        if value & PANICKED != 0 {
            Some(PanicEvent::Panicked)
        } else if value & CRASH_LOADED != 0 {
            Some(PanicEvent::CrashLoaded)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_told_apart() {
        assert_eq!(Pvpanic::write(1), Some(PanicEvent::Panicked));
        assert_eq!(Pvpanic::write(2), Some(PanicEvent::CrashLoaded));
        assert_eq!(Pvpanic::write(3), Some(PanicEvent::Panicked));
        assert_eq!(Pvpanic::write(0xfc), None);
    }
}
