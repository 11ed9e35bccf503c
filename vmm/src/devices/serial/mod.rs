//! The serial console: an 8250 whose output goes into a ring buffer and a bounded file.

mod console;
mod device;

pub use console::{Console, FILE_MAX_BYTES, RING_BYTES};
pub use device::SerialPort;
