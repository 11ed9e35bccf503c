//! hull-fsd, the process behind a virtio-fs device: its configuration, how it is started, and
//! its control socket.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::client::{ControlClient, ControlError};
use crate::config::JailConfig;
use crate::control::{Answer, Request};
use crate::spawn::{SpawnError, config_file, keep_descriptors};

/// One hull-fsd. Every `*_fd` is the number of an inherited descriptor.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct FsdConfig {
    /// Name in logs: the sandbox id.
    pub id: String,
    /// Listening unix stream socket; the first connection is the VMM's (vhost-user). The
    /// process ends with it.
    pub socket_fd: i32,
    /// Listening unix stream socket of the control protocol ([`crate::control`]).
    pub control_fd: i32,
    /// As many as the VMM's device has.
    pub request_queues: u16,
    /// The jail; `None` only in tests.
    #[serde(default)]
    pub jail: Option<JailConfig>,
}

/// Starts `program` (hull-fsd) as the first process of a PID namespace, in a session of its
/// own. `mark` is put into its environment. The descriptors of `config` stay the caller's.
pub fn spawn(
    program: &Path,
    config: &FsdConfig,
    mark: Option<(&str, &Path)>,
    log: Stdio,
) -> Result<Child, SpawnError> {
    let failed = |source| SpawnError::Config {
        id: config.id.clone(),
        source,
    };
    let file = config_file(c"hull-fsd-config", config).map_err(failed)?;
    let mut command = Command::new(program);
    command
        .arg("--config-fd")
        .arg(file.as_raw_fd().to_string())
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.envs(mark);
    for variable in ["HULL_LOG", hull_timeouts::TIMEOUT_SCALE_VARIABLE] {
        if let Some(value) = std::env::var_os(variable) {
            command.env(variable, value);
        }
    }
    let keep = [config.socket_fd, config.control_fd, file.as_raw_fd()];
    keep_descriptors(&mut command, &keep);
    spawn_in_pid_namespace(command, file).map_err(|source| SpawnError::Start {
        program: program.display().to_string(),
        id: config.id.clone(),
        source,
    })
}

/// A PID namespace is that of a thread's children: a thread of its own leaves the caller's
/// later children where they belong.
fn spawn_in_pid_namespace(mut command: Command, config: File) -> io::Result<Child> {
    let start = move || {
        let _config = config;
        // SAFETY: plain system call; it changes where this thread's children go.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } < 0 {
            return Err(io::Error::last_os_error());
        }
        command.spawn()
    };
    std::thread::Builder::new()
        .name("spawn-fsd".to_owned())
        .spawn(start)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")))
}

/// The control socket of one hull-fsd.
#[derive(Debug, Clone)]
pub struct FsdClient(ControlClient);

impl FsdClient {
    /// The socket at `path`; nothing is connected yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(ControlClient::new(path))
    }

    /// Shows the guest a directory under `name`.
    pub async fn add_share(
        &self,
        name: &str,
        root: BorrowedFd<'_>,
        read_only: bool,
    ) -> Result<(), ControlError> {
        let name = name.to_owned();
        let request = Request::AddShare { name, read_only };
        self.0.done(self.0.call(&request, Some(root)).await?)
    }

    /// Takes a directory away.
    pub async fn remove_share(&self, name: &str) -> Result<(), ControlError> {
        let name = name.to_owned();
        let request = Request::RemoveShare { name };
        self.0.done(self.0.call(&request, None).await?)
    }

    /// The names of its shares.
    pub async fn shares(&self) -> Result<Vec<String>, ControlError> {
        match self.0.call(&Request::State, None).await? {
            Answer::Shares { shares, .. } => Ok(shares),
            _ => Err(self.0.unexpected()),
        }
    }

    /// Its metrics as Prometheus text.
    pub async fn metrics(&self) -> Result<String, ControlError> {
        self.0.metrics().await
    }
}
