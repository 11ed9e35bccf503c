//! PCI Express: one root bus whose configuration space is memory-mapped (ECAM).
//!
//! ```text
//! root: ECAM address → device → config (header, BARs, capability list)
//!                             → msix   (table and pending bits in a BAR → irqfd)
//! ```
//! Everything here is reached by a hostile guest: any offset and width is taken, what is
//! out of range reads as ones and is dropped when written.

mod config;
mod msix;
mod root;
mod vector;

pub use config::{Capability, ConfigSpace, ConfigWrite, HeaderIds};
pub use msix::{CONTROL_ENABLE as MSIX_ENABLE, MSIX_ENTRY_BYTES, MsixTable, NO_VECTOR};
pub use root::{BarSpace, BarWindow, PciDevice, PciRoot, Place, RootError};
pub use vector::Vector;
