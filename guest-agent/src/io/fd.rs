//! Non-blocking descriptors under tokio: pipes and pseudo-terminals.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd;
use tokio::io::unix::AsyncFd;

/// A pipe end or pseudo-terminal master that is read and written without blocking.
#[derive(Debug)]
pub struct PollFd(AsyncFd<OwnedFd>);

impl PollFd {
    /// Makes `fd` non-blocking and registers it.
    ///
    /// # Errors
    /// From fcntl or epoll.
    pub fn new(fd: OwnedFd) -> io::Result<PollFd> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: an OwnedFd names the same open descriptor until it is dropped, and the
        // AsyncFd owns it and hands out shared references only.
        Ok(PollFd(unsafe { AsyncFd::register(fd) }?))
    }

    /// Reads; 0 is end of file.
    ///
    /// # Errors
    /// From read(2). A pseudo-terminal without a slave ends in end of file, not EIO.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| Ok(unistd::read(fd.get_ref(), buffer)?)) {
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(0),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// From write(2): EPIPE when the reader is gone.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(unistd::write(fd.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok(written)) => bytes = &bytes[written..],
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// Sets a pseudo-terminal's size in characters.
    ///
    /// # Errors
    /// ENOTTY when it is a pipe.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is open as long as self, and TIOCSWINSZ reads one winsize.
        let result = unsafe { libc::ioctl(self.0.get_ref().as_raw_fd(), libc::TIOCSWINSZ, &size) };
        nix::errno::Errno::result(result)?;
        Ok(())
    }
}
