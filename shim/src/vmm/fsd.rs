//! hull-fsd: the process that serves directories of the host to one pod. It is started with
//! the pod's first host volume, ends with the VMM, and carries the sandbox's mark as the VMM
//! does, so that whatever ends the VMM's process ends it too.
//!
//! When it dies, the guest's open files mean nothing any more, and no second process could
//! tell what they meant. So the VM is ended as well, with that reason: the pod's containers
//! are reported dead, and their owner starts them anew in another sandbox.

use super::end::{end, kill, reap};
use super::paths::SandboxPaths;
use super::process::{create, file_error, listen};
use super::{Share, VmmError, VmmRecord, cgroup, procfs};
use crate::timeouts::scaled;
use hull_vmm_client::client::ControlClient;
use hull_vmm_client::config::JailConfig;
use hull_vmm_client::control::FsState;
use hull_vmm_client::exit::ExitReason;
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
/// Most of a log's last line that becomes part of an error.
const LAST_WORDS_CHARS: usize = 500;
/// How often a process whose end cannot be followed is looked at.
const REAP_PAUSE: Duration = Duration::from_secs(1);
/// How long a VMM may take to see that its file server is gone, before [`scaled`].
const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is asked.
const NOTICE_PAUSE: Duration = Duration::from_millis(20);

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

    /// Follows the one that an earlier shim started, if there is one, to its end.
    pub async fn follow_adopted(&self) {
        let vmm = ControlClient::new(&self.paths.control);
        match vmm.state().await.map(|state| state.fs) {
            Ok(Some(FsState::Attached)) => {}
            Ok(Some(FsState::Broken)) => {
                return end_vm("while no shim ran", self.vmm, &self.paths).await;
            }
            _ => return,
        }
        let is_server = |(pid, directory): &(u32, PathBuf)| {
            *directory == self.paths.dir && *pid != self.vmm.pid
        };
        let mut processes = procfs::sandbox_processes(&self.servers.sandboxes_dir).into_iter();
        match processes.find(is_server) {
            Some((pid, _)) => follow(pid, self.vmm, self.paths.clone()).await,
            // It went in this moment.
            None => end_vm("nobody saw how", self.vmm, &self.paths).await,
        }
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
        tokio::spawn(follow(pid, self.vmm, self.paths.clone()));
        tracing::info!(sandbox_id = %id.to_string_lossy(), pid, "file server started");
        vmm.attach_fs(stream.as_fd())
            .await
            .map_err(|source| VmmError::ConnectFsd {
                source,
                last_words: last_words(&self.paths.fsd_log),
            })
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

/// The last line of a log.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().next_back().unwrap_or("none");
    last.chars().take(LAST_WORDS_CHARS).collect()
}

fn remove(path: &Path) -> Result<(), VmmError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file_error("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Waits for the end of a file server. If the VM outlives it, that ends too.
async fn follow(pid: u32, vmm: VmmRecord, paths: SandboxPaths) {
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
    let how = match reap(pid) {
        Some(status) => status.to_string(),
        // The child of an earlier shim.
        None => "nobody saw how".to_owned(),
    };
    end_vm(&how, vmm, &paths).await;
}

/// Ends a VM that lost its file server, and writes down why.
async fn end_vm(how: &str, vmm: VmmRecord, paths: &SandboxPaths) {
    let sandbox_id = paths.dir.file_name().unwrap_or_default().to_string_lossy();
    if !lost(paths).await {
        tracing::debug!(%sandbox_id, how, "the pod's file server ended");
        return;
    }
    let message = format!(
        "its file server (hull-fsd) died ({how}), and with it the pod's host volumes; the last \
         line of its log: {}",
        last_words(&paths.fsd_log)
    );
    if let Err(error) = end(vmm, paths, ExitReason::FileServerDied, &message).await {
        tracing::error!(%sandbox_id, pid = vmm.pid, %error, "ending a VM without file server");
    }
}

/// Whether the VMM lives and has lost its file server: one that ends takes it along.
async fn lost(paths: &SandboxPaths) -> bool {
    let vmm = ControlClient::new(&paths.control);
    let noticed = async {
        loop {
            match vmm.state().await.map(|state| state.fs) {
                Ok(Some(FsState::Broken)) => return true,
                Ok(Some(FsState::Attached)) => tokio::time::sleep(NOTICE_PAUSE).await,
                // Never connected, which whoever wanted it was told; or the VMM is gone.
                _ => return false,
            }
        }
    };
    tokio::time::timeout(scaled(NOTICE_TIMEOUT), noticed)
        .await
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    /// A VMM that answers, one a request, with these states of its file server, and then is
    /// gone from its socket; its process lives.
    fn vmm(states: &'static [&str]) -> (tempfile::TempDir, SandboxPaths, std::process::Child) {
        let directory = tempfile::tempdir().unwrap();
        let (run_dir, state_dir) = (directory.path().join("run"), directory.path().join("state"));
        let paths = SandboxPaths::new(&run_dir, &state_dir, "x1");
        super::super::process::make_directories(&paths).unwrap();
        std::fs::write(&paths.fsd_log, "earlier\nfarewell\n").unwrap();
        std::fs::write(&paths.exit, "").unwrap();
        let listener = UnixListener::bind(&paths.control).unwrap();
        let control = paths.control.clone();
        std::thread::spawn(move || {
            for state in states {
                let (mut stream, _) = listener.accept().unwrap();
                BufReader::new(stream.try_clone().unwrap())
                    .read_line(&mut String::new())
                    .unwrap();
                let answer = format!(
                    "{{\"answer\":\"state\",\"id\":\"x1\",\"pid\":1,\"uptime_ms\":1,\
                     \"running\":true,\"attached_disks\":[],\"fs\":\"{state}\"}}\n"
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
            std::fs::remove_file(control).unwrap();
        });
        let process = std::process::Command::new("sleep").arg("60").spawn();
        (directory, paths, process.unwrap())
    }

    fn record(process: &std::process::Child) -> VmmRecord {
        VmmRecord {
            pid: process.id(),
            start_ticks: procfs::start_ticks(process.id()).unwrap(),
        }
    }

    #[tokio::test]
    async fn a_vm_that_lost_its_file_server_is_ended_with_that_reason() {
        // It takes a moment to notice.
        let (_directory, paths, mut process) = vmm(&["attached", "broken"]);
        end_vm("signal: 9 (SIGKILL)", record(&process), &paths).await;
        let ended = process.wait().unwrap();
        assert!(!ended.success(), "{ended}");
        let text = std::fs::read_to_string(&paths.exit).unwrap();
        let record = hull_vmm_client::exit::read_record(&text, None);
        assert_eq!(record.reason, ExitReason::FileServerDied);
        for word in ["hull-fsd", "SIGKILL", "host volumes", "farewell"] {
            assert!(record.message.contains(word), "{}", record.message);
        }
    }

    #[tokio::test]
    async fn a_file_server_that_ends_with_its_vmm_is_no_reason() {
        // The VMM is gone from its socket; then one that was never connected.
        for states in [&["attached"] as &'static [&str], &["empty"]] {
            let (_directory, paths, mut process) = vmm(states);
            end_vm("exit status: 0", record(&process), &paths).await;
            assert!(process.try_wait().unwrap().is_none());
            process.kill().unwrap();
            process.wait().unwrap();
            assert_eq!(std::fs::read_to_string(&paths.exit).unwrap(), "");
        }
    }
}
