//! The file behind a disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

use super::device::SECTOR_BYTES;
use crate::memory::allocate;

/// BLKGETSIZE64 of linux/fs.h: size of a block device in bytes.
pub const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;

/// A file cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// Its state cannot be read.
    #[error("Failed to {doing} the file of a disk")]
    Inspect {
        /// What was being done.
        doing: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Neither a regular file nor a block device.
    #[error("The file of a disk is neither a regular file nor a block device")]
    Kind,
    /// The disk is writable and the file is not open for writing.
    #[error("The file of a writable disk is not open for writing")]
    ReadOnly,
    /// The file is not open for reading.
    #[error("The file of a disk is not open for reading")]
    WriteOnly,
}

/// See the module.
#[derive(Debug)]
pub struct Backing {
    file: File,
    sectors: u64,
}

impl Backing {
    /// Takes `fd` as the file of a disk.
    pub fn new(fd: OwnedFd, read_only: bool) -> Result<Self, BackingError> {
        let file = File::from(fd);
        let failed = |doing| move |source| BackingError::Inspect { doing, source };
        // SAFETY: plain system call on an open descriptor.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
        if flags < 0 {
            return Err(failed("read the flags of")(io::Error::last_os_error()));
        }
        match flags & libc::O_ACCMODE {
            libc::O_RDONLY if !read_only => return Err(BackingError::ReadOnly),
            libc::O_WRONLY => return Err(BackingError::WriteOnly),
            _ => {}
        }
        let metadata = file.metadata().map_err(failed("inspect"))?;
        let bytes = if metadata.file_type().is_block_device() {
            block_device_bytes(&file).map_err(failed("read the size of"))?
        } else if metadata.is_file() {
            metadata.len()
        } else {
            return Err(BackingError::Kind);
        };
        Ok(Self {
            file,
            sectors: bytes / SECTOR_BYTES,
        })
    }

    /// Size in sectors of 512 bytes; the rest of the last sector is not reachable.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether `bytes` from `sector` on lie within the disk; gives the offset in bytes.
    pub fn offset(&self, sector: u64, bytes: u64) -> Option<u64> {
        let start = sector.checked_mul(SECTOR_BYTES)?;
        let end = start.checked_add(bytes)?;
        (end <= self.sectors * SECTOR_BYTES).then_some(start)
    }

    /// Reads into or writes from guest buffers completely.
    pub fn transfer(
        &self,
        write: bool,
        offset: u64,
        vectors: &mut [libc::iovec],
    ) -> io::Result<u64> {
        let (mut first, mut position) = (0, offset);
        while first < vectors.len() {
            let rest = &vectors[first..];
            let count = rest.len() as libc::c_int;
            let at = libc::off_t::try_from(position)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            let fd = self.file.as_raw_fd();
            // SAFETY: every vector lies in guest memory, which stays mapped; at most IOV_MAX
            // of them.
            let done = unsafe {
                if write {
                    libc::pwritev(fd, rest.as_ptr(), count, at)
                } else {
                    libc::preadv(fd, rest.as_ptr(), count, at)
                }
            };
            if done < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            if done == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            position += done as u64;
            first += advance(&mut vectors[first..], done as usize);
        }
        Ok(position - offset)
    }

    /// Empties `length` bytes from byte `offset` on; both were checked by [`Backing::offset`].
    pub fn empty(&self, how: Emptying, offset: u64, length: u64) -> io::Result<()> {
        let mode = libc::FALLOC_FL_KEEP_SIZE
            | match how {
                Emptying::Discard => libc::FALLOC_FL_PUNCH_HOLE,
                Emptying::Zero => libc::FALLOC_FL_ZERO_RANGE,
            };
        allocate(self.file.as_raw_fd(), mode, offset, length)
    }

    /// Makes what was written durable.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What becomes of a range of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptying {
    /// The host may take the space back; it reads as zeroes from then on.
    Discard,
    /// It reads as zeroes and keeps its space.
    Zero,
}

/// Drops `done` bytes from the front; returns how many vectors are finished.
fn advance(vectors: &mut [libc::iovec], mut done: usize) -> usize {
    for (index, vector) in vectors.iter_mut().enumerate() {
        if done < vector.iov_len {
            vector.iov_base = vector.iov_base.cast::<u8>().wrapping_add(done).cast();
            vector.iov_len -= done;
            return index;
        }
        done -= vector.iov_len;
    }
    vectors.len()
}

fn block_device_bytes(file: &File) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    // SAFETY: BLKGETSIZE64 writes one u64 to the address.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &mut bytes) };
    if outcome < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(bytes)
    }
}
