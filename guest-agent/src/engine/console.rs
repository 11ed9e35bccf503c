//! Receives the master of a pseudo-terminal that libcontainer opens inside the container.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// The socket on which libcontainer hands over the master.
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens in `directory`.
    pub fn new(directory: &Path) -> io::Result<ConsoleSocket> {
        let name = format!("console-{}", std::process::id());
        // A relative address, since a socket's path may have 107 bytes only. The helper
        // has one thread, and libcontainer uses absolute paths.
        std::env::set_current_dir(directory)?;
        let listener = UnixListener::bind(&name)?;
        std::env::set_current_dir("/")?;
        Ok(ConsoleSocket {
            listener,
            path: directory.join(name),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The master. libcontainer has sent it before it says that the process is ready.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (connection, _) = self.listener.accept()?;
        receive_fd(connection.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT)?
            .1
            .ok_or_else(|| io::Error::other("no descriptor came over the console socket"))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // Left over, it goes with the container's directory.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Receives one message and the descriptor that comes with it.
pub fn receive_fd(
    socket: i32,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut control = nix::cmsg_space!([i32; 1]);
    let mut iov = [IoSliceMut::new(buffer)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket, &mut iov, Some(&mut control), flags)?;
    let mut received = None;
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = item {
            for fd in fds {
                // SAFETY: the kernel just made this descriptor for us; nobody else has it.
                received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, received))
}
