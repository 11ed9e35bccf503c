//! The agent's side: starts helpers and understands their answers.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as CommandStdio};
use std::sync::Arc;
use std::time::Duration;

use hull_agent_protocol::client::scaled;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;

use super::child::SUBCOMMAND;
use super::console::receive_fd;
use super::message::{ExecFailure, Operation, Reply, Request};
use crate::LOG_VARIABLE;
use crate::reaper::{Child, Reaper};

/// How long one engine operation may take, before [`scaled`].
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer of a helper in bytes.
const MAX_REPLY: usize = 64 * 1024;
/// Longest report of a failed command in bytes.
const MAX_REPORT: u64 = 64 * 1024;

/// Why an engine operation failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The helper could not be started or spoken to.
    #[error("container engine: cannot {doing}: {source}")]
    Helper {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The helper ended without an answer.
    #[error("container engine: the helper ended with status {0} and no answer")]
    NoReply(i32),
    /// It took too long and was killed.
    #[error("container engine: no answer within {0:?}")]
    TimedOut(Duration),
    /// libcontainer's reason.
    #[error("container engine: {0}")]
    Failed(String),
    /// The command cannot be executed.
    #[error(transparent)]
    Command(ExecFailure),
}

/// A new process's standard streams; the agent's ends are elsewhere.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// A process that the engine made.
#[derive(Debug)]
pub struct Launched {
    /// Its end can be waited for.
    pub child: Child,
    /// Master of its pseudo-terminal.
    pub master: Option<OwnedFd>,
    /// Tells whether its command was executed.
    pub report: Report,
}

/// Read end of a report pipe.
#[derive(Debug)]
pub struct Report(OwnedFd);

impl Report {
    /// Waits until the process executes its command or fails to. Blocks.
    ///
    /// # Errors
    /// [`EngineError::Command`] says why the command cannot be executed.
    pub fn wait(self) -> Result<(), EngineError> {
        let mut text = Vec::new();
        std::fs::File::from(self.0)
            .take(MAX_REPORT)
            .read_to_end(&mut text)
            .map_err(helper("read its report"))?;
        if text.is_empty() {
            return Ok(());
        }
        // libcontainer reports at validation and again at execution: the first counts.
        let mut reports = serde_json::Deserializer::from_slice(&text).into_iter();
        Err(match reports.next() {
            Some(Ok(failure)) => EngineError::Command(failure),
            _ => EngineError::Failed(String::from_utf8_lossy(&text).into_owned()),
        })
    }
}

/// Starts engine helpers.
#[derive(Debug)]
pub struct Engine {
    reaper: Arc<Reaper>,
    state: PathBuf,
}

impl Engine {
    /// An engine whose containers' state is below `state`.
    pub fn new(reaper: Arc<Reaper>, state: PathBuf) -> Engine {
        Engine { reaper, state }
    }

    /// libcontainer's directory of one container.
    pub fn directory(&self, container: &str) -> PathBuf {
        self.state.join(container)
    }

    /// Creates a container from the bundle; its process waits for [`Engine::start`].
    ///
    /// # Errors
    /// [`EngineError::Command`] when the command does not exist; others as they say.
    pub async fn create(
        &self,
        container: &str,
        bundle: &Path,
        tty: bool,
        stdio: Stdio,
    ) -> Result<Launched, EngineError> {
        let bundle = bundle.to_owned();
        self.launch(container, Operation::Create { bundle, tty }, stdio)
            .await
    }

    /// Starts `process` (OCI `process` as a JSON file) in a running container that was
    /// created from the bundle.
    ///
    /// # Errors
    /// As [`Engine::create`].
    pub async fn exec(
        &self,
        container: &str,
        bundle: &Path,
        process: &Path,
        tty: bool,
        stdio: Stdio,
    ) -> Result<Launched, EngineError> {
        let operation = Operation::Exec {
            bundle: bundle.to_owned(),
            process: process.to_owned(),
            tty,
        };
        self.launch(container, operation, stdio).await
    }

    /// Lets a created container execute its command. See [`Report::wait`] for its success.
    ///
    /// # Errors
    /// When the container is not created or the helper fails.
    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        let null = || null().map_err(helper("open /dev/null"));
        let stdio = Stdio {
            stdin: null()?,
            stdout: null()?,
            stderr: null()?,
        };
        match self.run(container, Operation::Start, stdio).await?.0 {
            Reply::Started => Ok(()),
            Reply::Failed { message } => Err(EngineError::Failed(message)),
            other @ Reply::Process { .. } => Err(EngineError::Failed(format!("{other:?}"))),
        }
    }

    async fn launch(
        &self,
        container: &str,
        operation: Operation,
        stdio: Stdio,
    ) -> Result<Launched, EngineError> {
        let expectation = self.reaper.expect();
        let (reply, master, report) = self.run(container, operation, stdio).await?;
        match reply {
            Reply::Process { pid } if pid > 0 => Ok(Launched {
                child: expectation.claim(pid),
                master,
                report,
            }),
            Reply::Failed { message } => {
                // Every holder of the report pipe has ended or ends now.
                let wait = tokio::task::spawn_blocking(move || report.wait());
                match wait.await {
                    Ok(Err(error @ EngineError::Command(_))) => Err(error),
                    _ => Err(EngineError::Failed(message)),
                }
            }
            other => Err(EngineError::Failed(format!("unexpected answer {other:?}"))),
        }
    }

    async fn run(
        &self,
        container: &str,
        operation: Operation,
        stdio: Stdio,
    ) -> Result<(Reply, Option<OwnedFd>, Report), EngineError> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(helper("make its socket"))?;
        let (report, report_writer) =
            pipe2(OFlag::O_CLOEXEC).map_err(helper("make its report pipe"))?;
        let log = dup_stderr().map_err(helper("duplicate standard error"))?;
        let request = serde_json::to_string(&Request {
            operation,
            state: self.state.clone(),
            container: container.to_owned(),
        })
        .map_err(|error| EngineError::Failed(error.to_string()))?;
        let mut command = helper_command(&[&theirs, &report_writer, &log], &request, stdio);
        let mut child = self
            .reaper
            .spawn(&mut command)
            .map_err(helper("start the helper"))?;
        // The command holds the process's ends of its standard streams.
        drop((command, theirs, report_writer, log));

        let timeout = scaled(OPERATION_TIMEOUT);
        let Ok(ended) = tokio::time::timeout(timeout, child.wait()).await else {
            let _ = self.reaper.signal(child.pid(), libc::SIGKILL);
            return Err(EngineError::TimedOut(timeout));
        };
        let mut buffer = vec![0; MAX_REPLY];
        let flags = MsgFlags::MSG_DONTWAIT;
        let (length, master) = receive_fd(ours.as_raw_fd(), &mut buffer, flags)
            .map_err(|_| EngineError::NoReply(ended.code))?;
        let reply = serde_json::from_slice(&buffer[..length])
            .map_err(|_| EngineError::NoReply(ended.code))?;
        Ok((reply, master, Report(report)))
    }
}

fn helper_command(inherited: &[&OwnedFd; 3], request: &str, stdio: Stdio) -> Command {
    let fds: [RawFd; 3] = inherited.map(|fd| fd.as_raw_fd());
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(SUBCOMMAND)
        .args(fds.map(|fd| fd.to_string()))
        .arg(request)
        .env_clear()
        .envs(std::env::var_os(LOG_VARIABLE).map(|filter| (LOG_VARIABLE, filter)))
        .current_dir("/")
        .stdin(CommandStdio::from(stdio.stdin))
        .stdout(CommandStdio::from(stdio.stdout))
        .stderr(CommandStdio::from(stdio.stderr));
    let inherit = move || {
        for fd in fds {
            // SAFETY: the descriptor is open in this process until after the fork.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe.
    unsafe { command.pre_exec(inherit) };
    command
}

fn helper<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> EngineError {
    move |source| EngineError::Helper {
        doing,
        source: source.into(),
    }
}

/// /dev/null for both directions.
fn null() -> io::Result<OwnedFd> {
    Ok(std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?
        .into())
}

fn dup_stderr() -> io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    io::stderr().as_fd().try_clone_to_owned()
}
