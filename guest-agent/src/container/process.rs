//! A process in a container, the first or an exec: its streams, its end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hull_agent_protocol::client::scaled;
use hull_agent_protocol::v1::{Event, Exit};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, pipe2};
use tokio::sync::watch;

use super::cgroup::Cgroup;
use crate::engine::{Launched, Report, Stdio};
use crate::events::Events;
use crate::io::fd::PollFd;
use crate::io::input::Input;
use crate::io::output::Output;
use crate::reaper::Child;

/// How long the streams of an ended process may stay open, before [`scaled`]: a child
/// that it left behind may hold them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What a process's streams are to be.
#[derive(Debug, Clone, Copy)]
pub struct StreamOptions {
    /// A pseudo-terminal for all three.
    pub tty: bool,
    /// Whether it has a standard input; otherwise /dev/null.
    pub stdin: bool,
    /// Whether the end of a stdin stream closes it.
    pub close_stdin_at_end: bool,
    /// Owner of the pipes, so that /dev/stdout can be opened again.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
}

/// The agent's ends of the pipes of a process that is about to be launched.
#[derive(Debug)]
pub struct PreparedStreams {
    options: StreamOptions,
    stdin: Option<OwnedFd>,
    output: Option<(OwnedFd, OwnedFd)>,
}

/// Makes the pipes. With a pseudo-terminal there are none: the engine brings its master.
///
/// # Errors
/// From pipe(2).
pub fn prepare(options: StreamOptions) -> io::Result<(Stdio, PreparedStreams)> {
    let null = || -> io::Result<OwnedFd> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        Ok(file.into())
    };
    let mut prepared = PreparedStreams {
        options,
        stdin: None,
        output: None,
    };
    if options.tty {
        let stdio = Stdio {
            stdin: null()?,
            stdout: null()?,
            stderr: null()?,
        };
        return Ok((stdio, prepared));
    }
    let stdin = match options.stdin {
        true => {
            let (reader, writer) = pipe_for(options)?;
            prepared.stdin = Some(writer);
            reader
        }
        false => null()?,
    };
    let (stdout_reader, stdout) = pipe_for(options)?;
    let (stderr_reader, stderr) = pipe_for(options)?;
    prepared.output = Some((stdout_reader, stderr_reader));
    let stdio = Stdio {
        stdin,
        stdout,
        stderr,
    };
    Ok((stdio, prepared))
}

fn pipe_for(options: StreamOptions) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let (uid, gid) = (Uid::from_raw(options.uid), Gid::from_raw(options.gid));
    nix::unistd::fchown(&writer, Some(uid), Some(gid))?;
    Ok((reader, writer))
}

/// A process and what the host can do to it.
#[derive(Debug)]
pub struct Process {
    container: String,
    exec: String,
    pid: i32,
    streams: Streams,
    exit: watch::Sender<Option<Exit>>,
}

#[derive(Debug)]
struct Streams {
    stdin: Option<Arc<Input>>,
    stdout: Arc<Output>,
    stderr: Option<Arc<Output>>,
    terminal: Option<Arc<PollFd>>,
}

impl Streams {
    fn start(prepared: PreparedStreams, master: Option<OwnedFd>) -> io::Result<Streams> {
        let options = prepared.options;
        let (stdout, mut stderr) = (Output::new(), None);
        let (mut stdin, mut terminal) = (None, None);
        if let Some(master) = master {
            let master = Arc::new(PollFd::new(master)?);
            stdout.pump(Arc::clone(&master));
            if options.stdin {
                stdin = Some(Arc::clone(&master));
            }
            terminal = Some(master);
        }
        if let Some((out, err)) = prepared.output {
            stdout.pump(Arc::new(PollFd::new(out)?));
            let output = Output::new();
            output.pump(Arc::new(PollFd::new(err)?));
            stderr = Some(output);
        }
        if let Some(writer) = prepared.stdin {
            stdin = Some(Arc::new(PollFd::new(writer)?));
        }
        Ok(Streams {
            stdin: stdin.map(|fd| Input::new(fd, options.close_stdin_at_end)),
            stdout,
            stderr,
            terminal,
        })
    }

    async fn finish(&self) {
        if let Some(stdin) = &self.stdin {
            stdin.close();
        }
        let patience = scaled(DRAIN_TIMEOUT);
        let stderr = async {
            if let Some(stderr) = &self.stderr {
                stderr.finish(patience).await;
            }
        };
        tokio::join!(self.stdout.finish(patience), stderr);
    }
}

impl Process {
    /// Takes over a launched process: its streams are read and its end is awaited,
    /// recorded and announced. Also returns its report.
    ///
    /// # Errors
    /// When its streams cannot be polled.
    pub fn adopt(
        container: &str,
        exec: &str,
        launched: Launched,
        prepared: PreparedStreams,
        cgroup: Cgroup,
        events: Arc<Events>,
    ) -> io::Result<(Arc<Process>, Report)> {
        let process = Arc::new(Process {
            container: container.to_owned(),
            exec: exec.to_owned(),
            pid: launched.child.pid(),
            streams: Streams::start(prepared, launched.master)?,
            exit: watch::Sender::new(None),
        });
        let watched = Arc::clone(&process);
        tokio::spawn(watched.watch(launched.child, cgroup, events));
        Ok((process, launched.report))
    }

    async fn watch(self: Arc<Self>, mut child: Child, cgroup: Cgroup, events: Arc<Events>) {
        let oom_before = if self.exec.is_empty() {
            0
        } else {
            cgroup.oom_kills()
        };
        let ended = child.wait().await;
        let killed_for_memory = cgroup.oom_kills() > oom_before
            && (self.exec.is_empty() || ended.signal == Signal::SIGKILL as u32);
        if self.exec.is_empty()
            && let Err(error) = cgroup.signal_all(Signal::SIGKILL)
        {
            // Removing the container tries again and reports it.
            tracing::warn!(container = self.container, %error, "cannot kill what is left");
        }
        self.streams.finish().await;
        let exit = Exit {
            code: ended.code,
            signal: ended.signal,
            oom_killed: killed_for_memory,
            at_ns: ended.at_ns,
        };
        tracing::info!(
            container = self.container,
            exec = self.exec,
            code = exit.code,
            signal = exit.signal,
            oom_killed = exit.oom_killed,
            "process ended"
        );
        self.exit.send_replace(Some(exit));
        events.push(Event {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            exit: Some(exit),
        });
    }

    /// Process id in the agent's namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for the end, with the output read or given up.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or_default(),
            // The sender is a field of self.
            Err(_) => Exit::default(),
        }
    }

    /// Standard input, if it has one.
    pub fn stdin(&self) -> Option<&Arc<Input>> {
        self.streams.stdin.as_ref()
    }

    /// Standard output or, if `stderr`, error; with a terminal there is no error.
    pub fn output(&self, stderr: bool) -> Option<&Arc<Output>> {
        match stderr {
            true => self.streams.stderr.as_ref(),
            false => Some(&self.streams.stdout),
        }
    }

    /// Its pseudo-terminal, if it has one.
    pub fn terminal(&self) -> Option<&Arc<PollFd>> {
        self.streams.terminal.as_ref()
    }
}
