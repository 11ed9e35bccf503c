//! hull-fsd: the process that serves directories of the host to one pod. It is started with
//! the pod's first host volume, ends with the VMM, and carries the sandbox's mark as the VMM
//! does, so that whatever ends the VMM's process ends it too.

use super::paths::SandboxPaths;
use super::process::{create, file_error, kill, listen, reap};
use super::{Share, VmmError, VmmRecord, cgroup, procfs};
use hull_vmm_client::client::ControlClient;
use hull_vmm_client::config::JailConfig;
use hull_vmm_client::control::FsState;
use hull_vmm_client::fsd::{FsdClient, FsdConfig, spawn};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Tag of the virtio-fs device, by which the agent mounts it.
pub const TAG: &str = "hull";
/// Request queues of the device: one that waits for a slow disk leaves another.
pub const REQUEST_QUEUES: u16 = 2;
/// How often a process whose end cannot be followed is looked at.
const REAP_PAUSE: Duration = Duration::from_secs(1);

/// How file servers are started.
#[derive(Debug, Clone)]
pub struct FileServers {
    /// The program.
    pub program: PathBuf,
    /// Whether they install their seccomp filter.
    pub seccomp: bool,
    /// `<run_dir>/sandboxes`.
    pub sandboxes_dir: PathBuf,
}

/// The file server of one VM.
#[derive(Debug)]
pub struct FileServer {
    servers: FileServers,
    vmm: VmmRecord,
    paths: SandboxPaths,
    /// Held while it is started.
    starting: tokio::sync::Mutex<()>,
}

impl FileServer {
    /// The one of the VM with this process. It runs or not.
    pub fn new(servers: FileServers, vmm: VmmRecord, paths: SandboxPaths) -> Self {
        Self {
            servers,
            vmm,
            paths,
            starting: tokio::sync::Mutex::new(()),
        }
    }

    fn client(&self) -> FsdClient {
        FsdClient::new(&self.paths.fsd_control)
    }

    /// Adds a share, and starts the process if there is none.
    pub async fn add(&self, share: Share) -> Result<(), VmmError> {
        let _starting = self.starting.lock().await;
        let vmm = ControlClient::new(&self.paths.control);
        match vmm.state().await?.fs {
            None => return Err(VmmError::NoFs),
            Some(FsState::Broken) => return Err(VmmError::FsdDied),
            Some(FsState::Attached) => {}
            Some(FsState::Empty) => self.start(&vmm, share.uid).await?,
        }
        self.client()
            .add_share(&share.name, share.root.as_fd(), share.read_only)
            .await
            .map_err(VmmError::Fsd)
    }

    /// Takes away the shares whose names begin with `prefix`; without a process there are none.
    pub async fn remove(&self, prefix: &str) -> Result<(), VmmError> {
        if !self.paths.fsd_control.exists() {
            return Ok(());
        }
        let _starting = self.starting.lock().await;
        let vmm = ControlClient::new(&self.paths.control);
        if vmm.state().await?.fs != Some(FsState::Attached) {
            return Ok(());
        }
        let client = self.client();
        let shares = client.shares().await.map_err(VmmError::Fsd)?;
        for share in shares.iter().filter(|share| share.starts_with(prefix)) {
            client.remove_share(share).await.map_err(VmmError::Fsd)?;
        }
        Ok(())
    }

    async fn start(&self, vmm: &ControlClient, uid: u32) -> Result<(), VmmError> {
        // One that an earlier shim started and did not get to connect.
        for (pid, directory) in procfs::sandbox_processes(&self.servers.sandboxes_dir) {
            if directory == self.paths.dir && pid != self.vmm.pid {
                kill(pid).await?;
            }
        }
        let (servers, paths) = (self.servers.clone(), self.paths.clone());
        let spawned = tokio::task::spawn_blocking(move || servers.spawn(&paths, uid)).await;
        let (pid, stream) = spawned.map_err(|error| VmmError::Spawn {
            program: self.servers.program.clone(),
            source: std::io::Error::other(error),
        })??;
        let id = self.paths.dir.file_name().unwrap_or_default();
        let cgroup = cgroup::of_process(self.vmm.pid, &id.to_string_lossy());
        if let Some(Err(error)) = cgroup.map(|cgroup| cgroup::place(&cgroup, pid)) {
            tracing::debug!(pid, %error, "a file server stays in the shim's cgroup");
        }
        tokio::spawn(follow(pid, id.to_string_lossy().into_owned()));
        tracing::info!(sandbox_id = %id.to_string_lossy(), pid, "file server started");
        Ok(vmm.attach_fs(stream.as_fd()).await?)
    }
}

impl FileServers {
    fn spawn(&self, paths: &SandboxPaths, uid: u32) -> Result<(u32, UnixStream), VmmError> {
        for stale in [&paths.fsd_control, &paths.fsd_vhost] {
            remove(stale)?;
        }
        let (vhost, control) = (listen(&paths.fsd_vhost)?, listen(&paths.fsd_control)?);
        let config = FsdConfig {
            id: paths
                .dir
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            socket_fd: vhost.as_raw_fd(),
            control_fd: control.as_raw_fd(),
            request_queues: REQUEST_QUEUES,
            jail: Some(JailConfig {
                uid,
                gid: uid,
                seccomp: self.seccomp,
            }),
        };
        let log = Stdio::from(create(&paths.fsd_log)?);
        let mark = (procfs::DIRECTORY_VARIABLE, paths.dir.as_path());
        let child = spawn(&self.program, &config, Some(mark), log)?;
        let stream = UnixStream::connect(&paths.fsd_vhost)
            .map_err(file_error("connecting to", &paths.fsd_vhost))?;
        remove(&paths.fsd_vhost)?;
        Ok((child.id(), stream))
    }
}

fn remove(path: &Path) -> Result<(), VmmError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file_error("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Waits for the end of a child and says how it was.
async fn follow(pid: u32, sandbox_id: String) {
    let target = rustix::process::Pid::from_raw(pid as i32);
    let flags = rustix::process::PidfdFlags::NONBLOCK;
    if let Some(Ok(pidfd)) = target.map(|pid| rustix::process::pidfd_open(pid, flags))
        // SAFETY: `pidfd` is an owned, open descriptor, which the AsyncFd takes over and
        // which stays the same for as long as it lives.
        && let Ok(pidfd) = unsafe {
            tokio::io::unix::AsyncFd::register_with_interest(pidfd, tokio::io::Interest::READABLE)
        }
    {
        let _ = pidfd.readable().await;
    }
    while procfs::start_ticks(pid).is_some() {
        tokio::time::sleep(REAP_PAUSE).await;
    }
    match reap(pid) {
        Some(status) if !status.success() => {
            tracing::warn!(sandbox_id, pid, %status, "the pod's file server died");
        }
        _ => tracing::debug!(sandbox_id, pid, "the pod's file server ended"),
    }
}
