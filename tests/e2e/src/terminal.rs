//! kubectl on a terminal, as a user has it: a pseudo-terminal of a size that changes.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use nix::pty::openpty;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::{kubectl::Kubectl, wait};

/// Seconds until what is awaited is shown, on hardware.
const SHOWN_S: u64 = 20;

/// A terminal's size.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A kubectl and its terminal.
pub struct Terminal {
    kubectl: Child,
    user: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts kubectl on a terminal of this size.
    pub fn start(kubectl: &Kubectl, arguments: &[&str], size: Size) -> Result<Terminal> {
        let pty = openpty(None, None).context("opening a terminal")?;
        let user = File::from(pty.master);
        resize(&user, size)?;
        let side = || pty.slave.try_clone().map(Stdio::from);
        let kubectl = Command::new("setsid")
            // Only of the controlling terminal's changes a process is told.
            .args(["--ctty", "kubectl", "--kubeconfig"])
            .arg(kubectl.kubeconfig())
            .args(arguments)
            .stdin(side()?)
            .stdout(side()?)
            .stderr(side()?)
            .spawn()
            .context("starting kubectl on a terminal")?;
        drop(pty.slave);
        let shown = Arc::default();
        collect(user.try_clone()?, Arc::clone(&shown));
        Ok(Terminal {
            kubectl,
            user,
            shown,
        })
    }

    /// Makes it larger or smaller.
    pub fn resize(&self, size: Size) -> Result<()> {
        resize(&self.user, size)
    }

    /// Types.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        self.user.write_all(keys.as_bytes()).context("typing")
    }

    /// Waits until it shows these words.
    pub fn shows(&self, words: &str) -> Result<()> {
        wait::until(&format!("the terminal to show {words:?}"), SHOWN_S, || {
            let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            let shown = String::from_utf8_lossy(&shown).into_owned();
            Ok(if shown.contains(words) {
                Ok(())
            } else {
                Err(shown)
            })
        })
    }

    /// Waits until kubectl ends; its exit code, -1 when killed.
    pub fn exit_code(mut self) -> Result<i32> {
        wait::until("kubectl to end", SHOWN_S, || {
            let ended = self.kubectl.try_wait().context("waiting for kubectl")?;
            let code = ended.map(|status| status.code().unwrap_or(-1));
            Ok(code.ok_or_else(|| "it runs".into()))
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail when it has ended, as it should have.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

fn resize(terminal: &File, size: Size) -> Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).context("setting the terminal's size")
}

/// Keeps what the terminal shows.
fn collect(mut terminal: File, shown: Arc<Mutex<Vec<u8>>>) {
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        // The terminal's end is an error (EIO): the last program that had it open is gone.
        while let Ok(count @ 1..) = terminal.read(&mut chunk) {
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown.extend_from_slice(&chunk[..count]);
        }
    });
}
