//! A command inside the node: its own session and cgroup, with pipes or a terminal.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::protocol::{Command, Exit};

/// Parent of the cgroups of commands.
const CGROUP: &str = "/sys/fs/cgroup/hull-testnode";
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// No program was named.
    #[error("no command given")]
    Empty,
    /// The working directory is not there inside the node.
    #[error("working directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why it cannot be used.
        source: io::Error,
    },
    /// The program did not start.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The cgroup, pipe or terminal failed.
    #[error("{doing}: {source}")]
    Prepare {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A running command and the ends of its streams.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    cgroup: PathBuf,
    /// Where its standard input is written.
    pub stdin: Option<File>,
    /// Where its standard output, or its terminal, is read.
    pub stdout: File,
    /// Where its standard error is read; none with a terminal.
    pub stderr: Option<File>,
    /// The terminal's controlling end, for its size.
    pub terminal: Option<File>,
}

/// What is needed to signal a command from another thread.
#[derive(Debug, Clone)]
pub struct Handle {
    pid: Pid,
    cgroup: PathBuf,
}

impl Handle {
    /// Sends a signal to the command's process group.
    pub fn signal(&self, number: i32) {
        if let Ok(signal) = Signal::try_from(number) {
            let _ = kill(Pid::from_raw(-self.pid.as_raw()), signal);
        }
    }

    /// Kills everything in the command's cgroup.
    pub fn kill_all(&self) {
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
    }
}

struct Streams {
    theirs: [Stdio; 3],
    stdin: Option<File>,
    stdout: File,
    stderr: Option<File>,
    terminal: Option<File>,
}

impl Child {
    /// Starts a command.
    pub fn spawn(command: &Command) -> Result<Self, ChildError> {
        let [program, args @ ..] = command.argv.as_slice() else {
            return Err(ChildError::Empty);
        };
        fs::read_dir(&command.cwd).map_err(|source| ChildError::Directory {
            path: command.cwd.clone(),
            source,
        })?;
        let cgroup = make_cgroup()?;
        let streams = match command.terminal {
            Some(size) => terminal_streams(size)?,
            None => pipe_streams()?,
        };
        let procs = cgroup.join("cgroup.procs");
        let procs = File::options()
            .write(true)
            .open(&procs)
            .map_err(preparing("opening cgroup"))?;
        let [stdin, stdout, stderr] = streams.theirs;
        let mut process = process::Command::new(program);
        process
            .args(args)
            .current_dir(&command.cwd)
            .env_clear()
            .envs(&command.env)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        let with_terminal = command.terminal.is_some();
        // SAFETY: between fork and exec the closure makes only async-signal-safe system
        // calls (write, setsid, ioctl) on descriptors that outlive it, and does not allocate.
        unsafe {
            process.pre_exec(move || enter(&procs, with_terminal));
        }
        let spawned = process.spawn();
        let process = spawned.map_err(|source| {
            let _ = fs::remove_dir(&cgroup);
            ChildError::Spawn {
                program: program.clone(),
                source,
            }
        })?;
        Ok(Self {
            process,
            cgroup,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            terminal: streams.terminal,
        })
    }

    /// A handle for signals.
    pub fn handle(&self) -> Handle {
        Handle {
            pid: Pid::from_raw(self.process.id() as i32),
            cgroup: self.cgroup.clone(),
        }
    }

    /// The command's pid.
    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// Waits for the command itself; what it left in the background may go on.
    pub fn wait(&mut self) -> io::Result<Exit> {
        let status = self.process.wait()?;
        // Fails while background processes are in it; they keep their cgroup.
        let _ = fs::remove_dir(&self.cgroup);
        Ok(exit_of(status))
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

/// Runs in the new process before the program is executed.
fn enter(procs: &File, with_terminal: bool) -> io::Result<()> {
    // "0" means the writing process itself (cgroup-v2, "Processes").
    nix::unistd::write(procs.as_fd(), b"0")?;
    nix::unistd::setsid()?;
    if with_terminal {
        // SAFETY: TIOCSCTTY takes an integer and touches no memory of ours; descriptor 0
        // is the terminal's far end.
        let result = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn preparing(doing: &'static str) -> impl FnOnce(io::Error) -> ChildError {
    move |source| ChildError::Prepare { doing, source }
}

fn make_cgroup() -> Result<PathBuf, ChildError> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = Path::new(CGROUP).join(format!("run-{number}"));
    fs::create_dir_all(&path).map_err(preparing("creating cgroup"))?;
    Ok(path)
}

fn pipe_streams() -> Result<Streams, ChildError> {
    let pipe = || {
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
            .map_err(|errno| preparing("creating pipe")(errno.into()))
    };
    let (stdin_read, stdin_write) = pipe()?;
    let (stdout_read, stdout_write) = pipe()?;
    let (stderr_read, stderr_write) = pipe()?;
    Ok(Streams {
        theirs: [stdin_read.into(), stdout_write.into(), stderr_write.into()],
        stdin: Some(stdin_write.into()),
        stdout: stdout_read.into(),
        stderr: Some(stderr_read.into()),
        terminal: None,
    })
}

fn terminal_streams((rows, columns): (u16, u16)) -> Result<Streams, ChildError> {
    let pair = openpty(Some(&window(rows, columns)), None)
        .map_err(|errno| preparing("opening terminal")(errno.into()))?;
    // openpty does not set close-on-exec; a leaked controlling end would keep the
    // terminal open after the command is gone.
    set_close_on_exec(&pair.master)?;
    set_close_on_exec(&pair.slave)?;
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(preparing("sharing terminal"));
    Ok(Streams {
        theirs: [
            copy(&pair.slave)?.into(),
            copy(&pair.slave)?.into(),
            pair.slave.into(),
        ],
        stdin: Some(copy(&pair.master)?.into()),
        stdout: copy(&pair.master)?.into(),
        stderr: None,
        terminal: Some(pair.master.into()),
    })
}

fn set_close_on_exec(fd: &OwnedFd) -> Result<(), ChildError> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map(drop)
        .map_err(|errno| preparing("preparing terminal")(errno.into()))
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Changes the size of a command's terminal.
pub fn resize(terminal: &File, rows: u16, columns: u16) {
    let size = window(rows, columns);
    // SAFETY: TIOCSWINSZ reads one winsize, which lives until the call returns.
    unsafe {
        libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size);
    }
}
