//! Making a tap.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
#[error("making the tap {name}: {action}: {source}")]
pub struct TapError {
    name: String,
    action: &'static str,
    source: io::Error,
}

mod ioctl {
    //! Linux' TUNSETIFF: `_IOW('T', 202, int)`.
    #![allow(missing_docs)]
    nix::ioctl_write_ptr_bad!(
        tunsetiff,
        nix::request_code_write!(b'T', 202, std::mem::size_of::<libc::c_int>()),
        libc::ifreq
    );
}

/// Makes a tap in the network namespace of the calling thread. It lives as long as
/// the returned descriptor: `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, not persistent.
pub fn create(name: &str) -> Result<File, TapError> {
    let fail = |action: &'static str, source: io::Error| TapError {
        name: name.to_string(),
        action,
        source,
    };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(fail(
            "its name",
            io::Error::from(io::ErrorKind::InvalidInput),
        ));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(|error| fail("opening /dev/net/tun", error))?;
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: `file` is an open descriptor and `request` a valid ifreq that outlives the call.
    unsafe { ioctl::tunsetiff(file.as_raw_fd(), &request) }
        .map_err(|error| fail("TUNSETIFF", error.into()))?;
    Ok(file)
}
