//! Virtual disks. The host names a virtio-blk device by its serial number and may
//! attach its backing while the guest runs: an empty slot has capacity 0.
//!
//! A slot can hold one image after the other, so a disk is handed back to the host
//! ([`wait_released`]) only when no filesystem holds the device any more, and its
//! cached blocks are dropped before each mount.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_agent_protocol::client::scaled;
use tonic::Code;

/// How long a disk may take to appear and to get its backing, before [`scaled`].
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the kernel may hold a disk after its last unmount, before [`scaled`].
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the above are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Longest serial number of a virtio-blk device in bytes (virtio 1.2, 5.2.6.1).
const MAX_SERIAL: usize = 20;
/// Bytes of a sector in /sys/block/*/size.
const SECTOR_BYTES: u64 = 512;

/// Where the EROFS superblock is, in bytes from the start.
const EROFS_SUPER_OFFSET: u64 = 1024;
/// EROFS's magic number, little-endian at the superblock's start.
const EROFS_MAGIC: u32 = 0xe0f5_e1e2;

/// BLKFLSBUF of linux/fs.h: drops a block device's cached blocks.
const BLKFLSBUF: libc::Ioctl = 0x1261;

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No device has this serial number.
    #[error("no disk has the serial number {0:?}")]
    NotFound(String),
    /// The serial number cannot be one.
    #[error("{0:?} is not a disk serial number")]
    BadSerial(String),
    /// The host attached no backing in time.
    #[error("disk {serial:?} ({device}) has no backing after {after:?}")]
    Empty {
        /// Serial number.
        serial: String,
        /// Device node.
        device: String,
        /// The time-out.
        after: Duration,
    },
    /// It holds no EROFS image, or a longer one than the device.
    #[error("disk {serial:?} ({device}) holds no complete EROFS image")]
    NotErofs {
        /// Serial number.
        serial: String,
        /// Device node.
        device: String,
    },
    /// Something still holds the device.
    #[error("{device} is still in use {after:?} after it was unmounted")]
    Busy {
        /// Device node.
        device: String,
        /// The time-out.
        after: Duration,
    },
    /// The operating system refused.
    #[error("cannot {doing} disk {device}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Device node or serial number.
        device: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl DiskError {
    /// The gRPC status code that this error becomes.
    pub fn code(&self) -> Code {
        match self {
            DiskError::NotFound(_) => Code::NotFound,
            DiskError::BadSerial(_) => Code::InvalidArgument,
            DiskError::Empty { .. } | DiskError::NotErofs { .. } => Code::FailedPrecondition,
            DiskError::Busy { .. } => Code::Unavailable,
            DiskError::Io { .. } => Code::Internal,
        }
    }
}

/// Waits until the disk `serial` is there and has a backing. Returns its device node. Blocks.
///
/// # Errors
/// [`DiskError`] says what is missing.
pub fn wait_attached(serial: &str) -> Result<PathBuf, DiskError> {
    if serial.is_empty()
        || serial.len() > MAX_SERIAL
        || !serial.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(DiskError::BadSerial(serial.chars().take(64).collect()));
    }
    let after = scaled(ATTACH_TIMEOUT);
    let deadline = Instant::now() + after;
    loop {
        let found = find(Path::new("/sys/block"), serial).map_err(|source| DiskError::Io {
            doing: "look for",
            device: serial.to_owned(),
            source,
        })?;
        match found {
            Some((name, bytes)) if bytes > 0 => return Ok(Path::new("/dev").join(name)),
            Some((name, _)) if Instant::now() >= deadline => {
                return Err(DiskError::Empty {
                    serial: serial.to_owned(),
                    device: name,
                    after,
                });
            }
            None if Instant::now() >= deadline => {
                return Err(DiskError::NotFound(serial.to_owned()));
            }
            _ => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

/// Name and capacity in bytes of the virtio disk `serial` below `/sys/block`.
fn find(sys_block: &Path, serial: &str) -> io::Result<Option<(String, u64)>> {
    for entry in std::fs::read_dir(sys_block)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let directory = sys_block.join(&name);
        // The attribute is answered by the device; one that is being removed has none.
        let Ok(text) = std::fs::read_to_string(directory.join("serial")) else {
            continue;
        };
        if !name.starts_with("vd") || text.trim_end_matches(['\n', '\0', ' ']) != serial {
            continue;
        }
        let sectors = std::fs::read_to_string(directory.join("size"))?;
        let sectors: u64 = sectors.trim().parse().map_err(io::Error::other)?;
        return Ok(Some((name, sectors * SECTOR_BYTES)));
    }
    Ok(None)
}

/// Waits until `device` holds a whole EROFS image: right after an attach the guest may
/// still know the size of the slot's former image. Blocks.
///
/// # Errors
/// [`DiskError::NotErofs`] when it does not within the time-out.
pub fn wait_erofs(serial: &str, device: &Path) -> Result<(), DiskError> {
    let deadline = Instant::now() + scaled(ATTACH_TIMEOUT);
    loop {
        let failed = match drop_caches(device).and_then(|()| holds_erofs(device)) {
            Ok(true) => return Ok(()),
            Ok(false) => DiskError::NotErofs {
                serial: serial.to_owned(),
                device: device.display().to_string(),
            },
            Err(source) => DiskError::Io {
                doing: "read",
                device: device.display().to_string(),
                source,
            },
        };
        // A readable superblock that is none does not become one.
        if matches!(failed, DiskError::NotErofs { .. }) && !might_be_stale(device)
            || Instant::now() >= deadline
        {
            return Err(failed);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn drop_caches(device: &Path) -> io::Result<()> {
    let file = File::open(device)?;
    // SAFETY: BLKFLSBUF takes no argument and the descriptor is open.
    nix::errno::Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), BLKFLSBUF, 0) })?;
    Ok(())
}

/// Whether the device is shorter than the image that it holds says.
fn might_be_stale(device: &Path) -> bool {
    let read = || -> io::Result<bool> {
        let file = File::open(device)?;
        Ok(image_bytes(&file)?.is_some())
    };
    read().unwrap_or(true)
}

fn holds_erofs(path: &Path) -> io::Result<bool> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    Ok(image_bytes(&file)?.is_some_and(|bytes| bytes <= length))
}

/// The length in bytes that an EROFS superblock claims; `None` if there is none.
fn image_bytes(file: &File) -> io::Result<Option<u64>> {
    let mut block = [0; 128];
    match file.read_exact_at(&mut block, EROFS_SUPER_OFFSET) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let word =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (magic, block_bits, blocks) = (word(0), block[12], word(36));
    if magic != EROFS_MAGIC || !(9..=16).contains(&block_bits) {
        return Ok(None);
    }
    Ok(Some(u64::from(blocks) << block_bits))
}

/// Waits until nothing in the kernel holds `device`: the host may detach it. Blocks.
///
/// # Errors
/// [`DiskError::Busy`] after the time-out.
pub fn wait_released(device: &Path) -> Result<(), DiskError> {
    let after = scaled(RELEASE_TIMEOUT);
    let deadline = Instant::now() + after;
    let failed = |doing, source| DiskError::Io {
        doing,
        device: device.display().to_string(),
        source,
    };
    loop {
        // O_EXCL on a block device: refused while a filesystem has claimed it.
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_EXCL | libc::O_CLOEXEC)
            .open(device);
        match opened {
            Ok(_) => return drop_caches(device).map_err(|e| failed("drop the cache of", e)),
            Err(error) if error.raw_os_error() != Some(libc::EBUSY) => {
                return Err(failed("open", error));
            }
            Err(_) if Instant::now() >= deadline => {
                return Err(DiskError::Busy {
                    device: device.display().to_string(),
                    after,
                });
            }
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(blocks: u32, length: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut block = [0u8; 128];
        block[..4].copy_from_slice(&EROFS_MAGIC.to_le_bytes());
        block[12] = 12;
        block[36..40].copy_from_slice(&blocks.to_le_bytes());
        file.as_file()
            .write_all_at(&block, EROFS_SUPER_OFFSET)
            .unwrap();
        file.as_file().set_len(length).unwrap();
        file
    }

    #[test]
    fn disk_is_found_by_serial_among_others() {
        let sys = tempfile::tempdir().unwrap();
        for (name, serial, size) in [
            ("vda", "scratch\n", "8\n"),
            ("vdb", "image-0", "0\n"),
            ("sda", "image-0", "4\n"),
        ] {
            let directory = sys.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join("serial"), serial).unwrap();
            std::fs::write(directory.join("size"), size).unwrap();
        }
        let find = |serial| find(sys.path(), serial).unwrap();
        assert_eq!(find("scratch"), Some(("vda".into(), 4096)));
        assert_eq!(find("image-0"), Some(("vdb".into(), 0)));
        assert_eq!(find("image"), None);
    }

    #[test]
    fn image_longer_than_its_device_is_not_mounted() {
        assert!(holds_erofs(image(2, 8192).path()).unwrap());
        assert!(!holds_erofs(image(3, 8192).path()).unwrap());
    }

    #[test]
    fn other_content_is_no_image() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!holds_erofs(file.path()).unwrap());
        file.as_file().set_len(1 << 20).unwrap();
        assert!(!holds_erofs(file.path()).unwrap());
    }

    #[test]
    fn impossible_serials_are_refused() {
        for serial in ["", "a b", "../x\n", &"x".repeat(21)] {
            assert!(
                matches!(wait_attached(serial), Err(DiskError::BadSerial(_))),
                "{serial:?}"
            );
        }
    }
}
