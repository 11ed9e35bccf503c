//! The kernel and initramfs that pods boot.
//!
//! ```text
//!  Hull's own kernel, if it is built ─┐
//!  Debian's cloud kernel ─ vmlinux ───┴─► CACHE/guest/vmlinux        (link)
//!            └─ modules ─┐
//!  hull-agent ──► /init ─┴─ cpio ───────► CACHE/guest/initramfs.cpio (link)
//! ```
//!
//! The archive is not compressed: unpacking costs more than reading under emulation,
//! and the host keeps one copy in its page cache for all pods.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, CacheError, io_error};
use crate::cpio::Archive;
use crate::kernel::{self, Kernel, KernelError};
use crate::lz4::{self, Lz4Error};
use crate::modules::{Modules, ModulesError};

/// Debian's kernel for virtual machines.
const CLOUD_KERNEL: &str = "linux-image-cloud-amd64";
/// Directory of the cache that all of this is in.
const DIRECTORY: &str = "guest";
/// Links in it to what pods boot today.
const KERNEL_LINK: &str = "vmlinux";
const INITRAMFS_LINK: &str = "initramfs.cpio";
/// Where the initramfs lists its modules, one path a line, in the order of insertion.
pub const MODULE_LIST: &str = "/etc/hull/modules";

/// What a pod needs of the cloud kernel that is not built in.
const MODULES: [&str; 11] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "vmw_vsock_virtio_transport",
    "virtio_rng",
    "virtio_balloon",
    "virtiofs",
    "erofs",
    "overlay",
    "ext4",
    "pvpanic_mmio",
];

/// Why kernel or initramfs could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The cloud kernel could not be had.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The cloud kernel lacks a module.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// The image holds no kernel that we can expand.
    #[error("{image}: no ELF kernel in a legacy LZ4 frame: {source}")]
    Image {
        /// The compressed image.
        image: PathBuf,
        /// Why the last candidate was none.
        source: Lz4Error,
    },
    /// The agent is not a static program for this machine.
    #[error("{0}: not a statically linked x86-64 ELF program; build hull-agent with crt-static")]
    Agent(PathBuf),
}

/// What was prepared.
#[derive(Debug)]
pub struct Guest {
    /// The uncompressed ELF kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
}

impl Guest {
    /// What [`prepare`] left in the cache last; whether it did is seen when a file is opened.
    pub fn in_cache() -> Result<Self, CacheError> {
        let directory = cache::directory()?.join(DIRECTORY);
        Ok(Self {
            kernel: directory.join(KERNEL_LINK),
            initramfs: directory.join(INITRAMFS_LINK),
        })
    }
}

/// Debian's cloud kernel as an ELF image, beside its modules.
pub fn cloud_kernel() -> Result<(PathBuf, Kernel), GuestError> {
    let kernel = kernel::prepare(CLOUD_KERNEL, DIRECTORY)?;
    let vmlinux = kernel.image.with_file_name("vmlinux");
    if !vmlinux.exists() {
        let image = fs::read(&kernel.image).map_err(io_error("reading", &kernel.image))?;
        let elf = extract(&image).map_err(|source| GuestError::Image {
            image: kernel.image.clone(),
            source,
        })?;
        cache::write_atomically(&vmlinux, &elf)?;
    }
    Ok((vmlinux, kernel))
}

/// Packs the initramfs for `agent` and points the links at it and at the kernel:
/// `built`, or the cloud kernel.
pub fn prepare(agent: &Path, built: Option<&Path>) -> Result<Guest, GuestError> {
    let directory = cache::directory()?.join(DIRECTORY);
    cache::create_directory(&directory)?;
    let program = fs::read(agent).map_err(io_error("reading the agent", agent))?;
    if !is_static_program(&program) {
        return Err(GuestError::Agent(agent.to_owned()));
    }
    let (vmlinux, modules) = match built {
        Some(path) => (path.to_owned(), Vec::new()),
        None => {
            let (vmlinux, kernel) = cloud_kernel()?;
            let order = Modules::read(&kernel.modules)?.insertion_order(&MODULES)?;
            (vmlinux, order)
        }
    };
    let archive = pack(&program, &modules)?;
    let hash = cache::sha256_hex(&archive);
    let (short, _) = hash.split_at(16);
    let name = format!("initramfs-{short}.cpio");
    let initramfs = directory.join(&name);
    let _lock = cache::lock(&directory.join(".prepare.lock"))?;
    if !initramfs.exists() {
        cache::write_atomically(&initramfs, &archive)?;
    }
    // The two links change one after the other. Hull's own kernel has no modules to
    // load, and modules of the other kernel fail to load with a message naming both.
    cache::link_atomically(&vmlinux, &directory.join(KERNEL_LINK))?;
    cache::link_atomically(Path::new(&name), &directory.join(INITRAMFS_LINK))?;
    remove_older(&directory, &name)?;
    Ok(Guest {
        kernel: vmlinux,
        initramfs,
    })
}

/// A VMM that has an older archive open keeps it.
fn remove_older(directory: &Path, current: &str) -> Result<(), CacheError> {
    let entries = fs::read_dir(directory).map_err(io_error("listing", directory))?;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("initramfs-") && name != current {
            fs::remove_file(entry.path()).map_err(io_error("removing", &entry.path()))?;
        }
    }
    Ok(())
}

fn pack(agent: &[u8], modules: &[PathBuf]) -> Result<Vec<u8>, CacheError> {
    let mut archive = Archive::new();
    for name in ["dev", "proc", "sys", "run", "tmp", "etc", "etc/hull"] {
        archive.directory(name);
    }
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.character_device("dev/null", 0o666, 1, 3);
    archive.file("init", 0o755, agent);
    if modules.is_empty() {
        return Ok(archive.finish());
    }
    archive.directory("lib");
    archive.directory("lib/modules");
    let mut list = String::new();
    for path in modules {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let contents = fs::read(path).map_err(io_error("reading", path))?;
        archive.file(&format!("lib/modules/{name}"), 0o644, &contents);
        list.push_str(&format!("/lib/modules/{name}\n"));
    }
    archive.file(MODULE_LIST.trim_start_matches('/'), 0o644, list.as_bytes());
    Ok(archive.finish())
}

/// The ELF kernel inside a bzImage: the frame that expands to one. The magic number may
/// also occur by chance in the setup code, so every occurrence is tried.
fn extract(image: &[u8]) -> Result<Vec<u8>, Lz4Error> {
    let mut last = Lz4Error::Magic;
    for (at, _) in image
        .windows(4)
        .enumerate()
        .filter(|(_, bytes)| *bytes == lz4::MAGIC)
    {
        let (_, frame) = image.split_at(at);
        match lz4::decode_legacy(frame) {
            Ok(kernel) if kernel.starts_with(b"\x7fELF") => return Ok(kernel),
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// ELF, 64 bits, little endian, x86-64, and no PT_INTERP among the program headers.
fn is_static_program(bytes: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    const X86_64: u16 = 62;
    let half = |at: usize| {
        let field = bytes.get(at..at + 2)?;
        Some(u16::from_le_bytes(field.try_into().ok()?))
    };
    let word = |at: usize| {
        let field = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(field.try_into().ok()?))
    };
    let check = || {
        let table = word(32)? as usize;
        let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
        let interpreter = (0..count).any(|index| word(table + index * size) == Some(PT_INTERP));
        Some(half(18)? == X86_64 && count > 0 && !interpreter)
    };
    bytes.starts_with(b"\x7fELF\x02\x01") && check().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_kernel_behind_a_magic_number_that_is_none() {
        let mut image = b"setup".to_vec();
        image.extend_from_slice(&lz4::MAGIC);
        image.extend_from_slice(&[3, 0, 0, 0, 0x20, b'n', b'o']);
        image.extend_from_slice(&lz4::MAGIC);
        image.extend_from_slice(&[6, 0, 0, 0, 0x50, 0x7f, b'E', b'L', b'F', b'!']);
        // The expanded size, as the kernel build appends it.
        image.extend_from_slice(&[5, 0, 0, 0]);
        assert_eq!(extract(&image).unwrap(), b"\x7fELF!");
        assert!(extract(b"nothing here").is_err());
    }

    #[test]
    fn tells_static_from_dynamic_programs() {
        assert!(is_static_program(&fs::read("/bin/busybox").unwrap()));
        assert!(!is_static_program(&fs::read("/proc/self/exe").unwrap()));
        assert!(!is_static_program(b"\x7fELF\x02\x01 too short"));
        assert!(!is_static_program(b"#!/bin/sh\n"));
    }

    #[test]
    fn modules_are_listed_in_their_order_and_only_if_there_are_any() {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<_> = ["b.ko", "a.ko"]
            .map(|name| directory.path().join(name))
            .into();
        for path in &paths {
            fs::write(path, "module").unwrap();
        }
        let archive = pack(b"agent", &paths).unwrap();
        let text = String::from_utf8_lossy(&archive);
        assert!(text.contains("/lib/modules/b.ko\n/lib/modules/a.ko\n"));
        assert!(!String::from_utf8_lossy(&pack(b"agent", &[]).unwrap()).contains("modules"));
    }
}
