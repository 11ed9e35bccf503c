//! The x86/HVM direct boot ABI (PVH): `hvm_start_info`, memory map, module list.

use std::fs::File;
use std::io;

use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::source::Source;
use crate::layout;
use crate::memory::GuestMemory;

const START_INFO_MAGIC: u32 = 0x336e_c578;
const START_INFO_VERSION: u32 = 1;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const PAGE_BYTES: u64 = 4096;

/// The guest could not be made ready to boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel file cannot be read.
    #[error("Failed to read the {0} file")]
    Read(&'static str, #[source] io::Error),
    /// Not a kernel that can be loaded.
    #[error("Failed to load the kernel: not an ELF kernel that fits guest memory")]
    Kernel(#[source] linux_loader::loader::Error),
    /// The kernel has no PVH entry point.
    #[error("The kernel has no PVH entry point (CONFIG_PVH is off, or it is a compressed image)")]
    NoPvhEntry,
    /// The initramfs does not fit between the kernel and the end of low memory.
    #[error("The initramfs of {bytes} bytes does not fit into guest memory behind the kernel")]
    InitramfsSize {
        /// Its size.
        bytes: u64,
    },
    /// The initramfs cannot be copied into guest memory.
    #[error("Failed to copy the initramfs into guest memory")]
    Initramfs(#[source] vm_memory::GuestMemoryError),
    /// The command line is too long or has a NUL in it.
    #[error("The kernel command line has {0} bytes; at most {max} without NUL are possible", max = layout::COMMAND_LINE_MAX_BYTES - 1)]
    CommandLine(usize),
    /// Guest memory is too small for the boot data.
    #[error("Failed to write boot data into guest memory")]
    Write(#[source] vm_memory::GuestMemoryError),
}

/// How the boot processor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Address of the first instruction, in 32-bit protected mode without paging.
    pub instruction_pointer: u64,
    /// Address of `hvm_start_info`, for %ebx.
    pub start_info: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct MemoryMapEntry(hvm_memmap_table_entry);
// SAFETY: a repr(C) structure of integers without padding.
unsafe impl ByteValued for MemoryMapEntry {}

#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct ModuleEntry(hvm_modlist_entry);
// SAFETY: a repr(C) structure of integers without padding.
unsafe impl ByteValued for ModuleEntry {}

#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct StartInfo(hvm_start_info);
// SAFETY: a repr(C) structure of integers without padding.
unsafe impl ByteValued for StartInfo {}

/// Loads kernel, initramfs and command line, and writes the PVH structures.
/// `rsdp` is the guest address of the ACPI root pointer.
pub fn load(
    memory: &GuestMemory,
    kernel: &File,
    initramfs: Option<&File>,
    command_line: &str,
    rsdp: u64,
) -> Result<Entry, BootError> {
    let mut source = Source::new(kernel).map_err(|error| BootError::Read("kernel", error))?;
    let loaded = Elf::load(
        memory,
        None,
        &mut source,
        Some(GuestAddress(layout::EXTENDED_RAM_START)),
    )
    .map_err(BootError::Kernel)?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(BootError::NoPvhEntry);
    };
    let module = match initramfs {
        Some(file) => Some(load_initramfs(memory, file, loaded.kernel_end)?),
        None => None,
    };
    write_command_line(memory, command_line)?;
    let map = memory_map(memory);
    for (index, item) in (0u64..).zip(&map) {
        let address = layout::PVH_MEMORY_MAP + index * size_of::<MemoryMapEntry>() as u64;
        memory
            .write_obj(*item, GuestAddress(address))
            .map_err(BootError::Write)?;
    }
    let mut info = hvm_start_info {
        magic: START_INFO_MAGIC,
        version: START_INFO_VERSION,
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: rsdp,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    if let Some(module) = module {
        info.nr_modules = 1;
        info.modlist_paddr = layout::PVH_MODULE_LIST;
        memory
            .write_obj(module, GuestAddress(layout::PVH_MODULE_LIST))
            .map_err(BootError::Write)?;
    }
    memory
        .write_obj(StartInfo(info), GuestAddress(layout::PVH_START_INFO))
        .map_err(BootError::Write)?;
    Ok(Entry {
        instruction_pointer: entry.0,
        start_info: layout::PVH_START_INFO,
    })
}

fn load_initramfs(
    memory: &GuestMemory,
    file: &File,
    kernel_end: u64,
) -> Result<ModuleEntry, BootError> {
    let mut source = Source::new(file).map_err(|error| BootError::Read("initramfs", error))?;
    let bytes = source.len();
    let low_end = memory.iter().next().map_or(0, |region| region.len());
    let start = low_end
        .checked_sub(bytes)
        .map(|start| start & !(PAGE_BYTES - 1))
        .filter(|start| *start >= kernel_end)
        .ok_or(BootError::InitramfsSize { bytes })?;
    memory
        .read_exact_volatile_from(GuestAddress(start), &mut source, bytes as usize)
        .map_err(BootError::Initramfs)?;
    Ok(ModuleEntry(hvm_modlist_entry {
        paddr: start,
        size: bytes,
        ..Default::default()
    }))
}

fn write_command_line(memory: &GuestMemory, text: &str) -> Result<(), BootError> {
    if text.len() >= layout::COMMAND_LINE_MAX_BYTES || text.contains('\0') {
        return Err(BootError::CommandLine(text.len()));
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    memory
        .write_slice(&bytes, GuestAddress(layout::COMMAND_LINE))
        .map_err(BootError::Write)
}

fn memory_map(memory: &GuestMemory) -> Vec<MemoryMapEntry> {
    let entry = |addr, size, type_| {
        MemoryMapEntry(hvm_memmap_table_entry {
            addr,
            size,
            type_,
            reserved: 0,
        })
    };
    let mut map = vec![
        entry(0, layout::CONVENTIONAL_RAM_END, E820_RAM),
        entry(
            layout::ACPI_START,
            layout::ACPI_END - layout::ACPI_START,
            E820_RESERVED,
        ),
    ];
    for region in memory.iter() {
        let start = region.start_addr().0.max(layout::EXTENDED_RAM_START);
        map.push(entry(
            start,
            region.start_addr().0 + region.len() - start,
            E820_RAM,
        ));
    }
    map.push(entry(layout::ECAM_START, layout::ECAM_SIZE, E820_RESERVED));
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_vmm_client::config::MemoryPages;
    use std::io::Write;

    fn memory_of(mib: u64) -> GuestMemory {
        crate::memory::create(mib, MemoryPages::Normal).unwrap()
    }

    fn file_with(bytes: &[u8]) -> File {
        // SAFETY: the name is a C string; the descriptor is owned by the File alone.
        let raw = unsafe { libc::memfd_create(c"test".as_ptr(), 0) };
        // SAFETY: see above.
        let mut file = unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(raw) };
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_file_that_is_not_a_kernel_is_refused() {
        let memory = memory_of(64);
        for bytes in [
            &b""[..],
            b"MZ not a kernel at all",
            &[0x7f, b'E', b'L', b'F'],
            &[0xff; 4096],
        ] {
            let outcome = load(&memory, &file_with(bytes), None, "", 0);
            assert!(matches!(outcome, Err(BootError::Kernel(_))), "{outcome:?}");
        }
    }

    #[test]
    fn an_initramfs_that_does_not_fit_is_refused() {
        let memory = memory_of(32);
        let file = file_with(b"");
        file.set_len(40 << 20).unwrap();
        assert!(matches!(
            load_initramfs(&memory, &file, 0),
            Err(BootError::InitramfsSize { .. })
        ));
    }

    #[test]
    fn a_command_line_that_is_too_long_is_refused() {
        let memory = memory_of(32);
        let long = "x".repeat(layout::COMMAND_LINE_MAX_BYTES);
        assert!(matches!(
            write_command_line(&memory, &long),
            Err(BootError::CommandLine(_))
        ));
        assert!(matches!(
            write_command_line(&memory, "a\0b"),
            Err(BootError::CommandLine(3))
        ));
    }

    #[test]
    fn the_memory_map_leaves_out_the_holes() {
        let memory = memory_of(4096);
        let map = memory_map(&memory);
        let ram: Vec<_> = map
            .iter()
            .filter(|e| e.0.type_ == E820_RAM)
            .map(|e| (e.0.addr, e.0.size))
            .collect();
        assert_eq!(
            ram,
            vec![
                (0, layout::CONVENTIONAL_RAM_END),
                (1 << 20, layout::PCI_HOLE_START - (1 << 20)),
                (layout::HIGH_RAM_START, 1 << 30),
            ]
        );
    }
}
