//! pvpanic: the guest kernel says that it panicked.

mod device;

pub use device::{ACPI_HARDWARE_ID, PanicEvent, Pvpanic};
