//! The end of a VMM's process: told, seen, or brought about.

use super::paths::SandboxPaths;
use super::process::file_error;
use super::{VmExit, VmmError, VmmRecord, procfs};
use crate::timeouts::scaled;
use hull_vmm_client::exit::{ExitReason, ExitRecord};
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

/// How long a process may take to vanish after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Kills a VMM that still runs, and first writes down why: whoever finds it gone, this shim
/// or the next, reads that.
pub(super) async fn end(
    vmm: VmmRecord,
    paths: &SandboxPaths,
    reason: ExitReason,
    message: &str,
) -> Result<(), VmmError> {
    if procfs::start_ticks(vmm.pid) != Some(vmm.start_ticks) {
        return Ok(());
    }
    tracing::error!(sandbox = %paths.dir.display(), pid = vmm.pid, ?reason, message, "a VM is ended");
    let noted = write_exit(&paths.exit, &ExitRecord::now(reason, message));
    kill(vmm.pid).await?;
    noted
}

fn write_exit(path: &Path, record: &ExitRecord) -> Result<(), VmmError> {
    let write = || -> std::io::Result<()> {
        let text = serde_json::to_vec(record)?;
        let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
        file.write_all(&text)
    };
    write().map_err(file_error("writing", path))
}

/// Kills a process and waits until it is gone.
pub(super) async fn kill(pid: u32) -> Result<(), VmmError> {
    let Some(start) = procfs::start_ticks(pid) else {
        return Ok(());
    };
    let target = nix::unistd::Pid::from_raw(pid as i32);
    let _ = nix::sys::signal::kill(target, nix::sys::signal::Signal::SIGKILL);
    let gone = async {
        let mut pause = Duration::from_millis(1);
        while procfs::start_ticks(pid) == Some(start) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    };
    tokio::time::timeout(scaled(KILL_TIMEOUT), gone)
        .await
        .map_err(|_| VmmError::Undead { pid })
}

/// How the VMM ended: what it wrote down, or else what waiting for it told.
pub(super) fn read_exit(path: &Path, status: Option<ExitStatus>) -> VmExit {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let record = hull_vmm_client::exit::read_record(&text, status);
    VmExit {
        reason: record.reason,
        message: record.message,
    }
}

/// Reaps a process if it is our child; an adopted one has another parent.
pub(super) fn reap(pid: u32) -> Option<ExitStatus> {
    let pid = nix::unistd::Pid::from_raw(pid as i32);
    match nix::sys::wait::waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw(code << 8)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::from_raw(signal as i32)),
        _ => None,
    }
}
