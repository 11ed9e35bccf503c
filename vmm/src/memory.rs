//! Guest RAM: one sealed memfd, mapped shared, split around the PCI hole.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use hull_vmm_client::config::MemoryPages;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionCollectionError,
};

use crate::layout::{HIGH_RAM_START, PCI_HOLE_START};

/// Guest memory as every part of the VMM sees it.
pub type GuestMemory = GuestMemoryMmap<()>;

/// Unit in which guest RAM is given back.
pub const PAGE_BYTES: u64 = 4096;
/// Size of a huge page, MiB.
pub const HUGE_PAGE_MIB: u64 = 2;
/// Least guest RAM: a Linux kernel with an initramfs does not start with less.
pub const MIN_MEMORY_MIB: u64 = 32;
/// Most guest RAM: 16 TiB, below the smallest physical address width that is in use.
pub const MAX_MEMORY_MIB: u64 = 16 << 20;

/// Guest RAM could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Size out of range.
    #[error("Guest memory of {0} MiB is outside {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB")]
    Size(u64),
    /// memfd_create, ftruncate or sealing failed.
    #[error("Failed to create the memfd for guest memory ({step})")]
    MemFd {
        /// System call.
        step: &'static str,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// There are not as many huge pages as the guest has RAM.
    #[error("Failed to take {mib} MiB of huge pages: vm.nr_hugepages of the host is too small")]
    HugePages {
        /// RAM of the guest.
        mib: u64,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// mmap failed.
    #[error("Failed to map guest memory")]
    Map(#[source] vm_memory::mmap::FromRangesError),
    /// KVM refused a memory slot.
    #[error("Failed to give KVM memory slot {slot}")]
    Slot {
        /// Number of the slot.
        slot: u32,
        /// Cause.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// The memory has no host address.
    #[error("Guest memory region has no host address")]
    HostAddress(#[source] vm_memory::GuestMemoryError),
    /// Only for callers that rebuild collections.
    #[error("Guest memory regions overlap")]
    Regions(#[source] GuestRegionCollectionError),
}

/// Splits `bytes` of RAM into (guest address, length) ranges around the PCI hole.
pub fn ranges(bytes: u64) -> Vec<(GuestAddress, u64)> {
    let low = bytes.min(PCI_HOLE_START);
    let mut ranges = vec![(GuestAddress(0), low)];
    if bytes > low {
        ranges.push((GuestAddress(HIGH_RAM_START), bytes - low));
    }
    ranges
}

/// Makes guest RAM of `mib` MiB.
pub fn create(mib: u64, pages: MemoryPages) -> Result<GuestMemory, MemoryError> {
    if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&mib) {
        return Err(MemoryError::Size(mib));
    }
    let bytes = mib << 20;
    let huge = pages == MemoryPages::Hugetlb;
    let file = Arc::new(File::from(sealed_memfd(bytes, huge)?));
    if huge {
        // A page that is not there when the guest touches it would end the VMM in SIGBUS.
        allocate(file.as_raw_fd(), 0, 0, bytes)
            .map_err(|source| MemoryError::HugePages { mib, source })?;
    }
    let mut offset = 0;
    let mut parts = Vec::new();
    for (start, length) in ranges(bytes) {
        parts.push((
            start,
            length as usize,
            Some(FileOffset::from_arc(Arc::clone(&file), offset)),
        ));
        offset += length;
    }
    let memory = GuestMemory::from_ranges_with_files(parts).map_err(MemoryError::Map)?;
    if pages == MemoryPages::Transparent {
        advise_huge_pages(&memory)?;
    }
    Ok(memory)
}

fn advise_huge_pages(memory: &GuestMemory) -> Result<(), MemoryError> {
    for region in memory.iter() {
        let host = memory
            .get_host_address(region.start_addr())
            .map_err(MemoryError::HostAddress)?;
        // SAFETY: the mapping is the region's own, whole; advice changes nothing that it holds.
        if unsafe { libc::madvise(host.cast(), region.len() as usize, libc::MADV_HUGEPAGE) } != 0 {
            let error = io::Error::last_os_error();
            tracing::warn!(%error, "The host has no transparent huge pages for guest memory");
        }
    }
    Ok(())
}

fn sealed_memfd(bytes: u64, huge: bool) -> Result<OwnedFd, MemoryError> {
    let failed = |step| MemoryError::MemFd {
        step,
        source: std::io::Error::last_os_error(),
    };
    let name = CString::from(c"hull-guest-memory");
    let mut flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    if huge {
        flags |= libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
    }
    // SAFETY: the name is a valid C string; the result is checked.
    let raw = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if raw < 0 {
        return Err(failed("memfd_create"));
    }
    // SAFETY: raw is a descriptor that nothing else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: plain system call on a descriptor that is open.
    if unsafe { libc::ftruncate(raw, bytes as libc::off_t) } != 0 {
        return Err(failed("ftruncate"));
    }
    // Sealed against a change of size: another process that is given this file can never
    // make an access of the VMM end in SIGBUS.
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: plain system call on a descriptor that is open.
    if unsafe { libc::fcntl(raw, libc::F_ADD_SEALS, seals) } != 0 {
        return Err(failed("F_ADD_SEALS"));
    }
    Ok(fd)
}

/// fallocate(2), repeated when a signal interrupts it.
pub(crate) fn allocate(fd: RawFd, mode: i32, offset: u64, length: u64) -> io::Result<()> {
    let number = |value| {
        libc::off_t::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    };
    let (offset, length) = (number(offset)?, number(length)?);
    loop {
        // SAFETY: plain system call on a descriptor that the caller holds open.
        if unsafe { libc::fallocate(fd, mode, offset, length) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Gives the whole pages of a range of guest RAM back to the host; the guest finds zeroes
/// when it touches them again. Returns how many bytes that were.
pub fn release(memory: &GuestMemory, start: GuestAddress, length: u64) -> io::Result<u64> {
    let outside = || io::Error::from(io::ErrorKind::InvalidInput);
    let end = start.0.checked_add(length).ok_or_else(outside)?;
    let first = start.0.next_multiple_of(PAGE_BYTES);
    let last = end / PAGE_BYTES * PAGE_BYTES;
    if first >= last {
        return Ok(0);
    }
    let region = memory
        .find_region(GuestAddress(first))
        .filter(|region| last - 1 <= region.last_addr().0)
        .ok_or_else(outside)?;
    let file = region.file_offset().ok_or_else(outside)?;
    let offset = file.start() + (first - region.start_addr().0);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    allocate(file.file().as_raw_fd(), mode, offset, last - first)?;
    Ok(last - first)
}

/// Gives KVM one memory slot per region.
pub fn register(vm: &VmFd, memory: &GuestMemory) -> Result<(), MemoryError> {
    for (slot, region) in (0u32..).zip(memory.iter()) {
        let host = memory
            .get_host_address(region.start_addr())
            .map_err(MemoryError::HostAddress)?;
        let description = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY: the mapping covers memory_size bytes and lives as long as the VM: the VMM
        // never unmaps guest memory before it ends.
        unsafe { vm.set_user_memory_region(description) }
            .map_err(|source| MemoryError::Slot { slot, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_split_around_the_pci_hole() {
        let small = ranges(512 << 20);
        assert_eq!(small, vec![(GuestAddress(0), 512 << 20)]);
        let large = ranges(5 << 30);
        assert_eq!(
            large,
            vec![
                (GuestAddress(0), PCI_HOLE_START),
                (GuestAddress(HIGH_RAM_START), 2 << 30)
            ]
        );
    }

    #[test]
    fn memfd_cannot_be_shrunk() {
        let memory = create(32, MemoryPages::Normal).unwrap();
        let region = memory.iter().next().unwrap();
        let file = region.file_offset().unwrap().file();
        assert!(file.set_len(4096).is_err());
    }

    #[test]
    fn released_pages_read_as_zeroes_and_cost_nothing() {
        use std::os::unix::fs::MetadataExt;
        use vm_memory::Bytes;
        let memory = create(32, MemoryPages::Normal).unwrap();
        let file = memory
            .iter()
            .next()
            .unwrap()
            .file_offset()
            .unwrap()
            .arc()
            .clone();
        memory
            .write_slice(&[7; 5 * 4096], GuestAddress(4096))
            .unwrap();
        let before = file.metadata().unwrap().blocks();
        // Bytes 5000 to 20000: pages 2 and 3 are whole.
        assert_eq!(
            release(&memory, GuestAddress(5000), 15_000).unwrap(),
            2 * 4096
        );
        assert_eq!(file.metadata().unwrap().blocks(), before - 16);
        let page = |number: u64| -> u8 { memory.read_obj(GuestAddress(number * 4096)).unwrap() };
        assert_eq!([page(1), page(2), page(3), page(4)], [7, 0, 0, 7]);
        assert_eq!(release(&memory, GuestAddress(4097), 4095).unwrap(), 0);
        for (start, length) in [
            (32 << 20, 4096),
            ((32 << 20) - 4096, 8192),
            (u64::MAX - 1, 4096),
        ] {
            assert!(release(&memory, GuestAddress(start), length).is_err());
        }
    }

    #[test]
    fn refuses_sizes_out_of_range() {
        let create = |mib| create(mib, MemoryPages::Normal);
        assert!(matches!(create(1), Err(MemoryError::Size(1))));
        assert!(matches!(create(u64::MAX), Err(MemoryError::Size(_))));
    }
}
