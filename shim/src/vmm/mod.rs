//! The VMM process of a sandbox, as the host sees it.
//!
//! hull-vmm opens nothing by itself: [`process`] opens every file and socket, hands
//! the descriptors over, and follows the process by a pidfd, so that one that was
//! adopted after a restart is followed in the same way.
//!
//! * [`paths`]: where a sandbox's files are
//! * [`process`]: [`VmmLauncher`] for hull-vmm
//! * [`scratch`]: the disk for writable layers and emptyDirs
//! * [`cgroup`]: placing the process in the pod's cgroup
//! * [`end`]: how the process ends
//! * [`console`]: the guest's last words
//! * [`fsd`]: hull-fsd, for pods with host volumes
//! * [`procfs`]: finding processes of sandboxes

pub mod cgroup;
pub mod console;
mod end;
pub mod fsd;
pub mod paths;
pub mod process;
pub mod procfs;
pub mod scratch;

use async_trait::async_trait;
use hull_vmm_client::exit::ExitReason;
use paths::SandboxPaths;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// Identifies a VMM process across restarts of the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmRecord {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of /proc/pid/stat): tells a
    /// later process with the same id apart.
    pub start_ticks: u64,
}

/// How a VM ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmExit {
    /// Which of the distinct ways.
    pub reason: ExitReason,
    /// A sentence.
    pub message: String,
}

/// What a VM is to be made of.
#[derive(Debug)]
pub struct LaunchRequest {
    /// Sandbox id.
    pub id: String,
    /// Where its files are.
    pub paths: SandboxPaths,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// RAM, MiB.
    pub memory_mib: u64,
    /// The tap; the launcher's copy is closed after the start.
    pub tap: File,
    /// Guest MAC.
    pub mac: String,
    /// Bytes.
    pub mtu: u16,
    /// Scratch disk image.
    pub scratch: PathBuf,
    /// Number of empty disks `slot0`…
    pub disk_slots: u8,
    /// User and group of the jailed process.
    pub uid: u32,
    /// cgroup of the pod as CRI names it, or empty.
    pub cgroup_parent: String,
}

/// A directory of the host for a guest.
#[derive(Debug)]
pub struct Share {
    /// Name in the guest's file system.
    pub name: String,
    /// A detached mount.
    pub root: OwnedFd,
    /// The server refuses changes, besides the mount.
    pub read_only: bool,
    /// User and group of the file server: those of the sandbox's jail.
    pub uid: u32,
}

/// Why a VMM could not be started or steered.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// A file or socket for it.
    #[error("{action} {path}: {source}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The process did not start.
    #[error("starting {program}: {source}")]
    Spawn {
        /// Which.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The control socket.
    #[error("asking the VMM: {}", causes(.0))]
    Control(#[from] hull_vmm_client::client::ControlError),
    /// hull-fsd did not start.
    #[error("starting the pod's file server: {}", causes(.0))]
    StartFsd(#[from] hull_vmm_client::spawn::SpawnError),
    /// hull-fsd ended before it served.
    #[error("connecting the VMM to the pod's file server: {}; its last words: {last_words}", causes(.source))]
    ConnectFsd {
        /// What the VMM says.
        source: hull_vmm_client::client::ControlError,
        /// End of hull-fsd's log.
        last_words: String,
    },
    /// hull-fsd's control socket.
    #[error("asking the pod's file server: {}", causes(.0))]
    Fsd(#[source] hull_vmm_client::client::ControlError),
    /// It died, and with it what the guest's files meant.
    #[error(
        "the pod's file server (hull-fsd) died: its host volumes are out of reach until the pod \
         is started anew"
    )]
    FsdDied,
    /// The VM was started without a virtio-fs device.
    #[error("the pod's VM has no virtio-fs device: it was started by an older shim")]
    NoFs,
    /// mkfs.ext4.
    #[error("making the scratch disk {path}: {problem}")]
    Scratch {
        /// Which file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The process does not go away.
    #[error("VMM process {pid} is still there after SIGKILL")]
    Undead {
        /// Its id.
        pid: u32,
    },
}

/// An error with its causes: the client's own messages leave them out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

/// Starts, finds again and destroys VMMs.
#[async_trait]
pub trait VmmLauncher: Send + Sync {
    /// Starts a VM. The process outlives the shim.
    async fn launch(&self, request: LaunchRequest) -> Result<Arc<dyn Vm>, VmmError>;
    /// The VM that an earlier shim started, or how it ended if it is gone.
    async fn adopt(
        &self,
        id: &str,
        paths: &SandboxPaths,
        record: &VmmRecord,
    ) -> Result<Result<Arc<dyn Vm>, VmExit>, VmmError>;
    /// Kills whatever runs for a sandbox and removes its cgroup. Idempotent.
    async fn destroy(
        &self,
        id: &str,
        paths: &SandboxPaths,
        cgroup_parent: &str,
    ) -> Result<(), VmmError>;
    /// Kills the processes of sandboxes that are not in `known`. Returns their ids.
    async fn destroy_unknown(&self, known: &[String]) -> Vec<String>;
}

/// A VM that runs.
#[async_trait]
pub trait Vm: Send + Sync {
    /// For the journal.
    fn record(&self) -> VmmRecord;
    /// Gives an empty disk a read-only backing.
    async fn attach_disk(&self, serial: &str, file: File) -> Result<(), VmmError>;
    /// Takes a disk's backing away.
    async fn detach_disk(&self, serial: &str) -> Result<(), VmmError>;
    /// Shows the guest a directory of the host as `share.name`; starts the pod's file server
    /// when this is its first.
    async fn add_share(&self, share: Share) -> Result<(), VmmError>;
    /// Takes away the shares whose names begin with `prefix`. Idempotent.
    async fn remove_shares(&self, prefix: &str) -> Result<(), VmmError>;
    /// Where its vCPUs stand, a sentence each, for people.
    async fn vcpus(&self) -> Result<Vec<String>, VmmError>;
    /// Kills it, for a reason that the next shim finds too.
    async fn end(&self, reason: ExitReason, message: &str) -> Result<(), VmmError>;
    /// Returns when the process has ended.
    async fn exited(&self) -> VmExit;
}
