//! The caller's terminal: its size, and raw mode while a shell inside the node has it.

use std::io::{IsTerminal, stdin};
use std::os::fd::AsRawFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Restores the terminal when dropped.
#[derive(Debug)]
pub struct RawMode(Option<Termios>);

impl RawMode {
    /// Makes standard input raw if it is a terminal.
    pub fn enter() -> Self {
        let Ok(before) = tcgetattr(stdin()) else {
            return Self(None);
        };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let changed = tcsetattr(stdin(), SetArg::TCSANOW, &raw).is_ok();
        Self(changed.then_some(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// Rows and columns of the terminal on standard input; 24 by 80 if there is none.
pub fn size() -> (u16, u16) {
    let mut size = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    if stdin().is_terminal() {
        // SAFETY: TIOCGWINSZ fills one winsize, which lives until the call returns.
        unsafe {
            libc::ioctl(stdin().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size);
        }
    }
    (size.ws_row, size.ws_col)
}
