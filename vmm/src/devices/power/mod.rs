//! Power off and reset: ACPI sleep control, ACPI reset register, keyboard controller reset.

mod device;

pub use device::{Power, PowerEvent, RESET_VALUE, SLEEP_TYPE_S5};
