//! vCPUs: CPUID, initial registers, the thread that runs each of them, and where it stands.

mod cpuid;
mod gate;
mod position;
mod registers;
mod run;

pub use cpuid::{CpuidError, physical_address_bits};
pub use gate::Gate;
pub use registers::RegisterError;
pub use run::{Buses, ExitCounters, Vcpu, VcpuError, install_kick_handler, kick_signal};
