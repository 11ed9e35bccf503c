//! The guest's physical address space and its fixed ports.
//!
//! ```text
//! 0x0000_0000  RAM (low), boot data below 640 KiB, ACPI tables at 0xe_0000
//! 0xc000_0000  PCI 32-bit window: BARs
//! 0xe000_0000  PCIe ECAM, bus 0
//! 0xfec0_0000  IOAPIC;  0xfee0_0000  local APIC
//! 0xfffb_c000  KVM identity map and TSS (used by KVM on Intel processors)
//! 0x1_0000_0000  RAM (high)
//! ```

/// Where low RAM ends at the latest and the PCI hole begins.
pub const PCI_HOLE_START: u64 = 0xc000_0000;
/// Start of the window from which 32-bit BARs are given out.
pub const PCI_MMIO_START: u64 = PCI_HOLE_START;
/// End (exclusive) of that window.
pub const PCI_MMIO_END: u64 = ECAM_START;
/// PCIe enhanced configuration space (ECAM) of segment 0.
pub const ECAM_START: u64 = 0xe000_0000;
/// One bus: 32 devices of 8 functions with 4 KiB each.
pub const ECAM_SIZE: u64 = 1 << 20;
/// First address above the 32-bit hole.
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;
/// End of the RAM below the legacy video hole.
pub const CONVENTIONAL_RAM_END: u64 = 0x9_fc00;
/// RAM from 1 MiB on.
pub const EXTENDED_RAM_START: u64 = 0x10_0000;

/// `hvm_start_info` of the PVH boot protocol.
pub const PVH_START_INFO: u64 = 0x6000;
/// Module list of the PVH boot protocol.
pub const PVH_MODULE_LIST: u64 = 0x6080;
/// Memory map of the PVH boot protocol.
pub const PVH_MEMORY_MAP: u64 = 0x7000;
/// Kernel command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Longest command line that Linux on x86-64 takes, with its final NUL.
pub const COMMAND_LINE_MAX_BYTES: usize = 2048;

/// Where the RSDP lies; the other ACPI tables follow.
pub const ACPI_START: u64 = 0xe_0000;
/// End (exclusive) of the room for ACPI tables.
pub const ACPI_END: u64 = 0x10_0000;

/// IOAPIC registers (in the kernel's irqchip).
pub const IOAPIC: u32 = 0xfec0_0000;
/// Local APIC registers.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Page that KVM uses on Intel processors for the identity map.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM uses on Intel processors for the task state segment.
pub const KVM_TSS: usize = 0xfffb_d000;

/// Interrupt pins of the IOAPIC; MSI-X routes use the numbers after them.
pub const IOAPIC_PINS: u32 = 24;
/// First serial port.
pub const COM1_PORT: u16 = 0x3f8;
/// Interrupt of the first serial port.
pub const COM1_IRQ: u32 = 4;
/// Keyboard controller command port; only its reset command is there.
pub const I8042_COMMAND_PORT: u16 = 0x64;
/// ACPI sleep control register.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// ACPI sleep status register.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// ACPI reset register.
pub const RESET_PORT: u16 = 0x604;
/// pvpanic.
pub const PVPANIC_PORT: u16 = 0x505;
