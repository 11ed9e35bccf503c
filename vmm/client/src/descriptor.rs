//! Taking a descriptor from a unix socket (SCM_RIGHTS).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Reads bytes and at most one descriptor. `flags` are those of recvmsg(2).
pub fn receive(
    stream: &UnixStream,
    bytes: &mut [u8],
    file: &mut Option<OwnedFd>,
    flags: i32,
) -> io::Result<usize> {
    const CONTROL_BYTES: usize = 64;
    #[repr(align(8))]
    struct Aligned([u8; CONTROL_BYTES]);
    let mut control = Aligned([0; CONTROL_BYTES]);
    let mut vector = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES;
    let flags = flags | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points at buffers that outlive the call.
    let count = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, flags) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel wrote the headers into the control buffer; the macros stay in it.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                let first = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..bytes / size_of::<RawFd>() {
                    // Each is owned from here on; all but the last are closed.
                    *file = Some(OwnedFd::from_raw_fd(first.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(count)
}
