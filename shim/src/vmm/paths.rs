//! Where the files of a sandbox are.

use hull_agent_protocol::BOOT_PORT;
use std::path::{Path, PathBuf};

/// Name of the vsock socket in the VMM's root directory.
pub const VSOCK_NAME: &str = "vsock";

/// Files of one sandbox.
///
/// ```text
/// <run_dir>/netns/<id>
/// <run_dir>/sandboxes/<id>/control.sock  console.log  exit.json  vmm.log
/// <run_dir>/sandboxes/<id>/fsd.sock  fsd.vhost  fsd.log   if it has host volumes
/// <run_dir>/sandboxes/<id>/vmm/          the VMM's root: vsock, vsock_1023
/// <state_dir>/scratch/<id>.img
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxPaths {
    /// Network namespace.
    pub netns: PathBuf,
    /// Everything that goes with the VM.
    pub dir: PathBuf,
    /// The VMM's root directory.
    pub vmm_root: PathBuf,
    /// Where the host connects to the guest.
    pub vsock: PathBuf,
    /// Where the guest's boot connection arrives.
    pub boot: PathBuf,
    /// The VMM's control socket.
    pub control: PathBuf,
    /// What the guest wrote to its serial console.
    pub console: PathBuf,
    /// How the VMM ended.
    pub exit: PathBuf,
    /// The VMM's own log.
    pub log: PathBuf,
    /// Control socket of hull-fsd.
    pub fsd_control: PathBuf,
    /// Where the VMM's connection to hull-fsd is made; removed once it is.
    pub fsd_vhost: PathBuf,
    /// hull-fsd's own log.
    pub fsd_log: PathBuf,
    /// The scratch disk.
    pub scratch: PathBuf,
}

impl SandboxPaths {
    /// The files of sandbox `id`.
    pub fn new(run_dir: &Path, state_dir: &Path, id: &str) -> Self {
        let dir = run_dir.join("sandboxes").join(id);
        let vmm_root = dir.join("vmm");
        Self {
            netns: run_dir.join("netns").join(id),
            vsock: vmm_root.join(VSOCK_NAME),
            boot: vmm_root.join(format!("{VSOCK_NAME}_{BOOT_PORT}")),
            control: dir.join("control.sock"),
            console: dir.join("console.log"),
            exit: dir.join("exit.json"),
            log: dir.join("vmm.log"),
            fsd_control: dir.join("fsd.sock"),
            fsd_vhost: dir.join("fsd.vhost"),
            fsd_log: dir.join("fsd.log"),
            scratch: state_dir.join("scratch").join(format!("{id}.img")),
            vmm_root,
            dir,
        }
    }

    /// Removes the files (not the netns). Idempotent.
    pub fn remove(&self) -> std::io::Result<()> {
        let gone = |outcome: std::io::Result<()>| match outcome {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        gone(std::fs::remove_dir_all(&self.dir))?;
        gone(std::fs::remove_file(&self.scratch))
    }
}
