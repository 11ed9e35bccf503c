//! A second process in a container.

use super::object::Container;
use super::state::ContainerState;
use crate::error::Error;
use crate::guest::{Guest, GuestError};
use crate::ids;
use crate::sandbox::object::Live;
use crate::shim::Shim;
use crate::timeouts::scaled;
use hull_agent_protocol::stream::Header;
use hull_agent_protocol::v1 as agent;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

const SIGKILL: u32 = 9;
/// Output of ExecSync that is returned, per stream, bytes; what follows is dropped.
const MAX_SYNC_OUTPUT: usize = 16 << 20;
/// How long output may take to arrive after the process ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 32 * 1024;

/// What is executed.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// Standard input is connected.
    pub stdin: bool,
}

/// A process that was started.
pub struct ExecSession {
    guest: Guest,
    /// Container id.
    pub container_id: String,
    /// Its own id.
    pub exec_id: String,
    /// It has a terminal.
    pub tty: bool,
}

/// The VM of a container that runs.
pub fn running(shim: &Shim, container: &Container) -> Result<Live, Error> {
    if container.state() != ContainerState::Running {
        return Err(Error::FailedPrecondition(format!(
            "container {} is in state {:?}, not running",
            container.id,
            container.state()
        )));
    }
    shim.sandbox_of(&container.sandbox_id)?.require_live()
}

impl ExecSession {
    /// Starts a process.
    pub async fn begin(
        live: &Live,
        container: &Container,
        options: ExecOptions,
    ) -> Result<Self, Error> {
        if options.command.is_empty() {
            return Err(Error::InvalidArgument("exec without a command".to_string()));
        }
        let session = Self {
            guest: live.guest.clone(),
            container_id: container.id.clone(),
            exec_id: ids::generate(),
            tty: options.tty,
        };
        session
            .guest
            .exec(agent::ExecRequest {
                container_id: session.container_id.clone(),
                exec_id: session.exec_id.clone(),
                args: options.command,
                env: if options.tty {
                    vec!["TERM=xterm".to_string()]
                } else {
                    Vec::new()
                },
                cwd: String::new(),
                tty: options.tty,
                stdin: options.stdin,
                tty_rows: 0,
                tty_columns: 0,
                user: String::new(),
            })
            .await?;
        Ok(session)
    }

    /// Opens standard output or error.
    pub async fn output(&self, stderr: bool) -> Result<UnixStream, GuestError> {
        let header = Header::Output {
            container: self.container_id.clone(),
            exec: Some(self.exec_id.clone()),
            stderr,
            offset: 0,
        };
        Ok(self.guest.open_stream(&header).await?.0)
    }

    /// Opens standard input.
    pub async fn input(&self) -> Result<UnixStream, GuestError> {
        let header = Header::Stdin {
            container: self.container_id.clone(),
            exec: Some(self.exec_id.clone()),
        };
        Ok(self.guest.open_stream(&header).await?.0)
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Result<agent::Exit, GuestError> {
        self.guest
            .wait(agent::WaitRequest {
                container_id: self.container_id.clone(),
                exec_id: self.exec_id.clone(),
            })
            .await
    }

    /// Changes the size of its terminal.
    pub async fn resize(&self, rows: u32, columns: u32) -> Result<(), GuestError> {
        let request = agent::ResizeTtyRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
            rows,
            columns,
        };
        self.guest.resize_tty(request).await.map(drop)
    }

    /// Kills it if it still runs, and forgets it.
    pub async fn end(&self, kill: bool) {
        if kill {
            let signal = agent::SignalRequest {
                container_id: self.container_id.clone(),
                exec_id: self.exec_id.clone(),
                signal: SIGKILL,
                all: false,
            };
            let _ = self.guest.signal(signal).await;
            let _ = tokio::time::timeout(scaled(DRAIN_TIMEOUT), self.wait()).await;
        }
        let request = agent::RemoveExecRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
        };
        if let Err(error) = self.guest.remove_exec(request).await {
            tracing::debug!(container_id = self.container_id, %error, "forgetting an exec");
        }
    }
}

/// What ExecSync returns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit code.
    pub exit_code: i32,
}

/// ExecSync. A process that takes longer than `limit` is killed.
pub async fn sync(
    shim: &Shim,
    container: &Container,
    command: Vec<String>,
    limit: Option<Duration>,
) -> Result<ExecOutput, Error> {
    let live = running(shim, container)?;
    let options = ExecOptions {
        command,
        ..Default::default()
    };
    match collect_within(&live, container, options, limit).await {
        Ok(output) => Ok(output),
        Err(error) => {
            let sandbox = shim.sandbox_of(&container.sandbox_id)?;
            Err(sandbox.explain(&live, error).await)
        }
    }
}

async fn collect_within(
    live: &Live,
    container: &Container,
    options: ExecOptions,
    limit: Option<Duration>,
) -> Result<ExecOutput, Error> {
    let session = ExecSession::begin(live, container, options).await?;
    let finished = match limit {
        Some(limit) => tokio::time::timeout(limit, collect(&session)).await.ok(),
        None => Some(collect(&session).await),
    };
    session.end(finished.is_none()).await;
    match (finished, limit) {
        (Some(outcome), _) => Ok(outcome?),
        (None, limit) => Err(Error::TimedOut(format!(
            "command in container {} timed out: timeout {:?} exceeded",
            container.id,
            limit.unwrap_or_default()
        ))),
    }
}

async fn collect(session: &ExecSession) -> Result<ExecOutput, GuestError> {
    let stdout_stream = session.output(false).await?;
    let stderr_stream = session.output(true).await?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = {
        let reading = async {
            tokio::join!(
                read_bounded(stdout_stream, &mut stdout),
                read_bounded(stderr_stream, &mut stderr)
            );
        };
        tokio::pin!(reading);
        tokio::select! {
            biased;
            () = &mut reading => session.wait().await?,
            exit = session.wait() => {
                // A process that went to the background may keep the pipes open.
                let _ = tokio::time::timeout(scaled(DRAIN_TIMEOUT), &mut reading).await;
                exit?
            }
        }
    };
    Ok(ExecOutput {
        stdout,
        stderr,
        exit_code: exit.code,
    })
}

async fn read_bounded(mut stream: UnixStream, into: &mut Vec<u8>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = MAX_SYNC_OUTPUT.saturating_sub(into.len());
        into.extend_from_slice(&buffer[..count.min(room)]);
    }
}
