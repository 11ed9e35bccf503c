//! [`VmmLauncher`] for the hull-vmm program.

use super::end::{end, kill, read_exit, reap};
use super::fsd::{self, FileServer, FileServers};
use super::paths::{SandboxPaths, VSOCK_NAME};
use super::{LaunchRequest, Share, Vm, VmExit, VmmError, VmmLauncher, VmmRecord, cgroup, procfs};
use crate::timeouts::{TIMEOUT_SCALE_VARIABLE, timeout_scale};
use async_trait::async_trait;
use hull_vmm_client::client::ControlClient;
use hull_vmm_client::config::{
    BootConfig, DiskConfig, FsConfig, JailConfig, MemoryPages, NetConfig, VmConfig, VsockConfig,
};
use hull_vmm_client::exit::ExitReason;
use hull_vmm_client::rate::RateLimits;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// The guest's context id. Every VM has a vsock device of its own, so one number does.
const GUEST_CID: u32 = 3;
/// Variable of the shim's environment whose value is the VMM's log filter (`HULL_LOG`).
const LOG_VARIABLE: &str = "HULL_VMM_LOG";
/// Serial of the scratch disk.
pub const SCRATCH_SERIAL: &str = "scratch";

/// Serial of the n-th empty disk.
pub fn slot_serial(number: u8) -> String {
    format!("slot{number}")
}

/// Starts hull-vmm processes.
#[derive(Debug, Clone)]
pub struct HullVmm {
    /// The program.
    pub program: PathBuf,
    /// Uncompressed ELF kernel.
    pub kernel: PathBuf,
    /// Initramfs with the agent.
    pub initramfs: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// What guest RAM is made of.
    pub memory_pages: MemoryPages,
    /// Whether the VMM installs its seccomp filter.
    pub seccomp: bool,
    /// `<run_dir>/sandboxes`.
    pub sandboxes_dir: PathBuf,
    /// The processes that serve host directories.
    pub file_servers: FileServers,
}

/// The descriptors that a VMM inherits.
#[derive(Default)]
struct Inherited {
    descriptors: Vec<OwnedFd>,
}

impl Inherited {
    fn add(&mut self, file: impl Into<OwnedFd>) -> RawFd {
        let descriptor = file.into();
        let number = descriptor.as_raw_fd();
        self.descriptors.push(descriptor);
        number
    }
}

pub(super) fn file_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> VmmError {
    let path = path.to_path_buf();
    move |source| VmmError::File {
        action,
        path,
        source,
    }
}

fn open(path: &Path, write: bool) -> Result<File, VmmError> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .open(path)
        .map_err(file_error("opening", path))
}

pub(super) fn create(path: &Path) -> Result<File, VmmError> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(file_error("making", path))
}

pub(super) fn listen(path: &Path) -> Result<UnixListener, VmmError> {
    UnixListener::bind(path).map_err(file_error("listening on", path))
}

impl HullVmm {
    fn config(&self, request: LaunchRequest, fds: &mut Inherited) -> Result<VmConfig, VmmError> {
        let paths = &request.paths;
        let kvm = Path::new("/dev/kvm");
        let mut disks: Vec<DiskConfig> = (0..request.disk_slots)
            .map(|n| DiskConfig {
                serial: slot_serial(n),
                fd: None,
                read_only: true,
                limits: RateLimits::default(),
            })
            .collect();
        disks.push(DiskConfig {
            serial: SCRATCH_SERIAL.to_string(),
            fd: Some(fds.add(open(&request.scratch, true)?)),
            read_only: false,
            limits: RateLimits::default(),
        });
        Ok(VmConfig {
            kvm_fd: fds.add(open(kvm, true)?),
            vcpus: request.vcpus,
            memory_mib: match self.memory_pages {
                MemoryPages::Hugetlb => request.memory_mib.saturating_add(request.memory_mib % 2),
                _ => request.memory_mib,
            },
            memory_pages: self.memory_pages,
            boot: BootConfig {
                kernel_fd: fds.add(open(&self.kernel, false)?),
                initramfs_fd: Some(fds.add(open(&self.initramfs, false)?)),
                cmdline: command_line(&self.cmdline, timeout_scale()),
            },
            disks,
            nets: vec![NetConfig {
                id: "net0".to_string(),
                tap_fd: Some(fds.add(request.tap)),
                mac: request.mac,
                mtu: request.mtu,
                receive_limits: RateLimits::default(),
                send_limits: RateLimits::default(),
            }],
            fs: Some(FsConfig {
                tag: fsd::TAG.to_string(),
                request_queues: fsd::REQUEST_QUEUES,
                // It comes with the first host volume.
                socket_fd: None,
            }),
            vfio: None,
            balloon: self.memory_pages != MemoryPages::Hugetlb,
            vsock: Some(VsockConfig {
                guest_cid: GUEST_CID,
                listener_fd: fds.add(listen(&paths.vsock)?),
                guest_socket_dir_fd: fds.add(open(&paths.vmm_root, false)?),
                guest_socket_prefix: VSOCK_NAME.to_string(),
            }),
            console_fd: fds.add(create(&paths.console)?),
            control_fd: fds.add(listen(&paths.control)?),
            exit_fd: fds.add(create(&paths.exit)?),
            jail: Some(JailConfig {
                uid: request.uid,
                gid: request.uid,
                seccomp: self.seccomp,
            }),
            id: request.id,
        })
    }

    fn spawn(&self, request: LaunchRequest) -> Result<(u32, Option<PathBuf>), VmmError> {
        let paths = request.paths.clone();
        let cgroup = cgroup::path(&request.cgroup_parent, &request.id);
        let mut fds = Inherited::default();
        let config = self.config(request, &mut fds)?;
        let config_fd = fds.add(config_file(&config, &paths.dir)?);
        let log = create(&paths.log)?;
        let log_twin = log
            .try_clone()
            .map_err(file_error("duplicating", &paths.log))?;
        let numbers: Vec<RawFd> = fds.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let mut command = Command::new(&self.program);
        command
            .arg("--config-fd")
            .arg(config_fd.to_string())
            .env_clear()
            .envs(environment(&paths.dir, |name| std::env::var_os(name)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_twin);
        // SAFETY: the closure only makes system calls that are safe after fork, on
        // descriptors that live until `spawn` returns, and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                // Its own session: signals for the shim's terminal or group miss it.
                nix::unistd::setsid()?;
                for number in &numbers {
                    if libc::fcntl(*number, libc::F_SETFD, 0) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let child = command.spawn().map_err(|source| VmmError::Spawn {
            program: self.program.clone(),
            source,
        })?;
        Ok((child.id(), cgroup))
    }
}

/// The environment of a VMM: its sandbox's mark, and what of the shim's own reaches it.
fn environment(
    directory: &Path,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<(&'static str, OsString)> {
    let mark = (procfs::DIRECTORY_VARIABLE, Some(directory.into()));
    let log = ("HULL_LOG", variable(LOG_VARIABLE));
    let scale = (TIMEOUT_SCALE_VARIABLE, variable(TIMEOUT_SCALE_VARIABLE));
    [mark, log, scale]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// The guest's command line. A kernel hands what it does not know itself to init as its
/// environment: so the agent learns by how much its time-outs are stretched.
fn command_line(given: &str, scale: f64) -> String {
    if scale == 1.0 {
        return given.to_owned();
    }
    // In front: what follows a "--" would be arguments of init.
    format!("{TIMEOUT_SCALE_VARIABLE}={scale} {given}")
}

fn config_file(config: &VmConfig, directory: &Path) -> Result<File, VmmError> {
    let fail = |source: std::io::Error| VmmError::File {
        action: "writing the VMM configuration in",
        path: directory.to_path_buf(),
        source,
    };
    let descriptor =
        nix::sys::memfd::memfd_create(c"vm-config", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
            .map_err(|error| fail(error.into()))?;
    let mut file = File::from(descriptor);
    let bytes = serde_json::to_vec(config).map_err(|error| fail(std::io::Error::other(error)))?;
    file.write_all(&bytes).map_err(fail)?;
    file.rewind().map_err(fail)?;
    Ok(file)
}

#[async_trait]
impl VmmLauncher for HullVmm {
    async fn launch(&self, request: LaunchRequest) -> Result<Arc<dyn Vm>, VmmError> {
        let launcher = self.clone();
        let paths = request.paths.clone();
        let spawned = tokio::task::spawn_blocking(move || launcher.spawn(request)).await;
        let (pid, cgroup) = spawned.map_err(|error| VmmError::Spawn {
            program: self.program.clone(),
            source: std::io::Error::other(error),
        })??;
        if let Some(directory) = cgroup
            && let Err(error) = cgroup::place(&directory, pid)
        {
            tracing::debug!(cgroup = %directory.display(), %error, "the VMM stays in the shim's cgroup");
        }
        let start_ticks = procfs::start_ticks(pid).unwrap_or_default();
        Process::follow(VmmRecord { pid, start_ticks }, paths, &self.file_servers)
            .map(|vm| vm as Arc<dyn Vm>)
    }

    async fn adopt(
        &self,
        _id: &str,
        paths: &SandboxPaths,
        record: &VmmRecord,
    ) -> Result<Result<Arc<dyn Vm>, VmExit>, VmmError> {
        let ended = || procfs::start_ticks(record.pid) != Some(record.start_ticks);
        if ended() {
            return Ok(Err(read_exit(&paths.exit, None)));
        }
        let process = match Process::follow(*record, paths.clone(), &self.file_servers) {
            // Between the two looks.
            Err(_) if ended() => return Ok(Err(read_exit(&paths.exit, None))),
            followed => followed?,
        };
        let adopted = Arc::clone(&process);
        tokio::spawn(async move { adopted.file_server.follow_adopted().await });
        Ok(Ok(process))
    }

    async fn destroy(
        &self,
        id: &str,
        paths: &SandboxPaths,
        cgroup_parent: &str,
    ) -> Result<(), VmmError> {
        for (pid, directory) in procfs::sandbox_processes(&self.sandboxes_dir) {
            if directory == paths.dir {
                kill(pid).await?;
            }
        }
        if let Some(directory) = cgroup::path(cgroup_parent, id) {
            let removed = cgroup::remove_once_empty(&directory).await;
            removed.map_err(file_error("removing the cgroup", &directory))?;
        }
        Ok(())
    }

    async fn destroy_unknown(&self, known: &[String]) -> Vec<String> {
        let mut destroyed = Vec::new();
        for (pid, directory) in procfs::sandbox_processes(&self.sandboxes_dir) {
            let id = directory
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let Some(id) = id.filter(|id| !known.contains(id)) else {
                continue;
            };
            // No record says where it was placed.
            let cgroup = cgroup::of_process(pid, &id);
            match kill(pid).await {
                Ok(()) => {
                    if let Some(directory) = cgroup
                        && let Err(error) = cgroup::remove_once_empty(&directory).await
                    {
                        tracing::error!(sandbox_id = id, %error, "an orphan's cgroup stays");
                    }
                    destroyed.push(id);
                }
                Err(error) => tracing::error!(sandbox_id = id, pid, %error, "an orphan stays"),
            }
        }
        destroyed
    }
}

/// A hull-vmm process.
struct Process {
    record: VmmRecord,
    paths: SandboxPaths,
    file_server: FileServer,
    exit: watch::Receiver<Option<VmExit>>,
}

impl Process {
    fn follow(
        record: VmmRecord,
        paths: SandboxPaths,
        file_servers: &FileServers,
    ) -> Result<Arc<Process>, VmmError> {
        let fail = |source: std::io::Error| VmmError::File {
            action: "following the process",
            path: PathBuf::from(format!("/proc/{}", record.pid)),
            source,
        };
        let pid = rustix::process::Pid::from_raw(record.pid as i32)
            .ok_or_else(|| fail(std::io::ErrorKind::InvalidInput.into()))?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK)
            .map_err(|error| fail(error.into()))?;
        // SAFETY: `pidfd` is an owned, open descriptor, which the AsyncFd takes over and
        // which stays the same for as long as it lives.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }
            .map_err(|error| fail(error.into()))?;
        let (sender, exit) = watch::channel(None);
        let exit_path = paths.exit.clone();
        tokio::spawn(async move {
            // A pidfd becomes readable when its process ends.
            if let Err(error) = pidfd.readable().await {
                tracing::error!(pid = record.pid, %error, "following a VMM");
            }
            let status = reap(record.pid);
            sender.send_replace(Some(read_exit(&exit_path, status)));
        });
        Ok(Arc::new(Process {
            record,
            file_server: FileServer::new(file_servers.clone(), record, paths.clone()),
            paths,
            exit,
        }))
    }
}

#[async_trait]
impl Vm for Process {
    fn record(&self) -> VmmRecord {
        self.record
    }

    async fn attach_disk(&self, serial: &str, file: File) -> Result<(), VmmError> {
        Ok(ControlClient::new(&self.paths.control)
            .attach_disk(serial, file.as_fd())
            .await?)
    }

    async fn detach_disk(&self, serial: &str) -> Result<(), VmmError> {
        Ok(ControlClient::new(&self.paths.control)
            .detach_disk(serial)
            .await?)
    }

    async fn add_share(&self, share: Share) -> Result<(), VmmError> {
        self.file_server.add(share).await
    }

    async fn remove_shares(&self, prefix: &str) -> Result<(), VmmError> {
        self.file_server.remove(prefix).await
    }

    async fn vcpus(&self) -> Result<Vec<String>, VmmError> {
        Ok(ControlClient::new(&self.paths.control).vcpus().await?)
    }

    async fn end(&self, reason: ExitReason, message: &str) -> Result<(), VmmError> {
        end(self.record, &self.paths, reason, message).await
    }

    async fn exited(&self) -> VmExit {
        let mut exit = self.exit.clone();
        let outcome = exit.wait_for(Option::is_some).await;
        outcome
            .ok()
            .and_then(|exit| exit.clone())
            .unwrap_or_else(|| read_exit(&self.paths.exit, None))
    }
}

/// Makes the directories of a sandbox; the VMM's root is only searchable by others.
pub fn make_directories(paths: &SandboxPaths) -> Result<(), VmmError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&paths.vmm_root)
        .map_err(file_error("making", &paths.vmm_root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmm_hears_of_its_sandbox_its_log_filter_and_the_time_out_scale_only() {
        let shims = |name: &str| match name {
            "HULL_VMM_LOG" => Some("debug".into()),
            "HULL_TIMEOUT_SCALE" => Some("4".into()),
            _ => Some("not for the VMM".into()),
        };
        let expected: Vec<(&str, OsString)> = vec![
            ("HULL_SANDBOX_DIR", "/run/x".into()),
            ("HULL_LOG", "debug".into()),
            ("HULL_TIMEOUT_SCALE", "4".into()),
        ];
        assert_eq!(environment(Path::new("/run/x"), shims), expected);
        let alone = environment(Path::new("/run/x"), |_| None);
        assert_eq!(alone, expected[..1]);
    }

    #[test]
    fn the_guest_is_told_the_time_out_scale_where_it_is_not_one() {
        assert_eq!(command_line("quiet -- x", 1.0), "quiet -- x");
        assert_eq!(
            command_line("quiet -- x", 2.5),
            "HULL_TIMEOUT_SCALE=2.5 quiet -- x"
        );
    }
}
