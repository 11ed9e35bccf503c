//! vCPUs: CPUID, initial registers, and the thread that runs each of them.

mod cpuid;
mod gate;
mod registers;
mod run;

pub use cpuid::{CpuidError, physical_address_bits};
pub use gate::Gate;
pub use registers::RegisterError;
pub use run::{Buses, ExitCounters, Vcpu, VcpuError, install_kick_handler, kick_signal};
