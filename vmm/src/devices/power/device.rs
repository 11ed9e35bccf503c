//! Registers of hardware-reduced ACPI (ACPI 6.5 §4.8.3.7) and the 8042 reset command.

use crate::layout::{I8042_COMMAND_PORT, RESET_PORT, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT};

/// SLP_TYP of state S5, as the DSDT's `_S5_` says.
pub const SLEEP_TYPE_S5: u8 = 5;
/// Value that the FADT names for the reset register.
pub const RESET_VALUE: u8 = 1;
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 7;
const I8042_PULSE_RESET: u8 = 0xfe;

/// What the guest asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// Power off.
    Off,
    /// Reboot.
    Reset,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Power;

impl Power {
    /// Reads a port of this device: idle, nothing pending. (The keyboard controller must
    /// not look busy, or Linux waits before it gives the reset command.)
    pub fn read(port: u16) -> Option<u8> {
        matches!(
            port,
            I8042_COMMAND_PORT | SLEEP_CONTROL_PORT | SLEEP_STATUS_PORT | RESET_PORT
        )
        .then_some(0)
    }

    /// Writes a port.
    pub fn write(port: u16, value: u8) -> Option<PowerEvent> {
        match port {
            SLEEP_CONTROL_PORT => {
                let kind = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
                (value & SLEEP_ENABLE != 0 && kind == SLEEP_TYPE_S5).then_some(PowerEvent::Off)
            }
            RESET_PORT if value == RESET_VALUE => Some(PowerEvent::Reset),
            I8042_COMMAND_PORT if value == I8042_PULSE_RESET => Some(PowerEvent::Reset),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_values_end_the_guest() {
        assert_eq!(
            Power::write(SLEEP_CONTROL_PORT, 5 << 2 | 1 << 5),
            Some(PowerEvent::Off)
        );
        assert_eq!(Power::write(SLEEP_CONTROL_PORT, 5 << 2), None);
        assert_eq!(Power::write(SLEEP_CONTROL_PORT, 3 << 2 | 1 << 5), None);
        assert_eq!(Power::write(RESET_PORT, 1), Some(PowerEvent::Reset));
        assert_eq!(Power::write(RESET_PORT, 2), None);
        assert_eq!(
            Power::write(I8042_COMMAND_PORT, 0xfe),
            Some(PowerEvent::Reset)
        );
        assert_eq!(Power::write(I8042_COMMAND_PORT, 0xd1), None);
    }
}
