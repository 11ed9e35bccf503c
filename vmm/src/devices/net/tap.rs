//! The tap: offloads, header size, frames.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Sets the size of the header in front of each frame (linux/if_tun.h).
pub const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
/// Sets the offloads that the reader of the tap can take (linux/if_tun.h).
pub const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
/// TUN_F_*: checksums, TCP segmentation for IPv4 and IPv6, with ECN.
pub const TUN_F_CSUM: u32 = 1;
/// See [`TUN_F_CSUM`].
pub const TUN_F_TSO4: u32 = 2;
/// See [`TUN_F_CSUM`].
pub const TUN_F_TSO6: u32 = 4;
/// See [`TUN_F_CSUM`].
pub const TUN_F_TSO_ECN: u32 = 8;
/// Bytes of virtio_net_hdr with num_buffers, which VIRTIO_F_VERSION_1 implies.
pub const HEADER_BYTES: usize = 12;

/// See the module.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    #[cfg(any(test, feature = "hostile"))]
    has_offloads: bool,
}

impl Tap {
    /// Makes the descriptor non-blocking and sets the header size.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let tap = Self {
            fd,
            #[cfg(any(test, feature = "hostile"))]
            has_offloads: true,
        };
        let size = HEADER_BYTES as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        if unsafe { libc::ioctl(tap.fd.as_raw_fd(), TUNSETVNETHDRSZ, &size) } < 0 {
            return Err(io::Error::last_os_error());
        }
        tap.without_blocking()?;
        Ok(tap)
    }

    /// For tests: any datagram-like descriptor.
    #[cfg(any(test, feature = "hostile"))]
    pub fn from_socket(fd: OwnedFd) -> io::Result<Self> {
        let tap = Self {
            fd,
            has_offloads: false,
        };
        tap.without_blocking()?;
        Ok(tap)
    }

    fn without_blocking(&self) -> io::Result<()> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: plain system calls on an open descriptor.
        let outcome = unsafe {
            let flags = libc::fcntl(fd, libc::F_GETFL);
            if flags < 0 {
                -1
            } else {
                libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)
            }
        };
        if outcome < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Tells the host kernel what frames the guest takes.
    pub fn set_offloads(&self, flags: u32) -> io::Result<()> {
        #[cfg(any(test, feature = "hostile"))]
        if !self.has_offloads {
            return Ok(());
        }
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        if unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                TUNSETOFFLOAD,
                libc::c_ulong::from(flags),
            )
        } < 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Reads one frame.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is valid for its length.
        let count = unsafe {
            libc::read(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Writes one frame from guest memory.
    pub fn write(&self, vectors: &[libc::iovec]) -> io::Result<usize> {
        // SAFETY: the vectors lie in guest memory, which stays mapped; at most IOV_MAX.
        let count = unsafe {
            libc::writev(
                self.fd.as_raw_fd(),
                vectors.as_ptr(),
                vectors.len() as libc::c_int,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
