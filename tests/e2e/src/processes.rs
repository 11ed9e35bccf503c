//! The daemons' processes: found by name, killed, or made to stand still.

use std::fs;

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait;

/// A process that stands still until this is dropped.
#[derive(Debug)]
pub struct Frozen(Pid);

impl Frozen {
    /// Stops a process where it is.
    pub fn new(pid: i32) -> Result<Frozen> {
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP).with_context(|| format!("stopping process {pid}"))?;
        Ok(Frozen(pid))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // A process that has ended since needs nothing more.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Processes whose program name is `name`.
pub(crate) fn pids_of(name: &str) -> Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let zombie =
            fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| stat.contains(") Z "));
        if comm.trim() == name && !zombie {
            pids.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|pid| pid.parse().ok())
                    .map(Pid::from_raw),
            );
        }
    }
    Ok(pids)
}

/// kill -9 of every process of that name; how many there were.
pub(crate) fn kill_named(name: &str) -> Result<usize> {
    let pids = pids_of(name)?;
    for pid in &pids {
        // A process that has ended since is as dead as wanted.
        let _ = kill(*pid, Signal::SIGKILL);
    }
    wait::until(&format!("{name} to die"), 5, || {
        let left = pids_of(name)?
            .into_iter()
            .filter(|pid| pids.contains(pid))
            .count();
        Ok(if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} left"))
        })
    })?;
    Ok(pids.len())
}
