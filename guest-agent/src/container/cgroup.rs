//! A container's cgroup (version 2). libcontainer makes it and sets its first limits; the
//! agent reads its counters ([`super::usage`]), changes its limits ([`super::limits`]),
//! kills what is in it, and removes it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_agent_protocol::client::scaled;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where cgroup2 is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";
/// How long killed processes may take to vanish, before [`scaled`].
const EMPTY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the above is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// One container's cgroup.
#[derive(Debug, Clone)]
pub struct Cgroup {
    /// As in the OCI spec, below [`ROOT`].
    path: PathBuf,
}

impl Cgroup {
    /// The cgroup `path` ("/hull/<container>").
    pub fn new(path: &str) -> Cgroup {
        Cgroup {
            path: PathBuf::from(path),
        }
    }

    /// As in the OCI spec.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        let relative = self.path.strip_prefix("/").unwrap_or(&self.path);
        Path::new(ROOT).join(relative).join(name)
    }

    /// How many processes the kernel has killed in it for lack of memory.
    pub fn oom_kills(&self) -> u64 {
        keyed(&self.read("memory.events"), "oom_kill")
    }

    /// Sends a signal to every process in it.
    ///
    /// # Errors
    /// From reading the list; EINVAL for a number that is no signal.
    pub fn signal_all(&self, signal: Signal) -> io::Result<()> {
        if signal == Signal::SIGKILL && std::fs::write(self.file("cgroup.kill"), "1").is_ok() {
            return Ok(());
        }
        let procs = match std::fs::read_to_string(self.file("cgroup.procs")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for pid in procs.lines().filter_map(|line| line.parse().ok()) {
            match kill(Pid::from_raw(pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Kills what is left in it and removes it. Blocks until it is empty.
    ///
    /// # Errors
    /// `TimedOut` when processes do not vanish; others from rmdir(2).
    pub fn destroy(&self) -> io::Result<()> {
        let directory = self.file("");
        if !directory.exists() {
            return Ok(());
        }
        let deadline = Instant::now() + scaled(EMPTY_TIMEOUT);
        loop {
            self.signal_all(Signal::SIGKILL)?;
            match remove_tree(&directory) {
                Ok(()) => return Ok(()),
                Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(error),
                Err(_) if Instant::now() >= deadline => {
                    let message = format!("processes in {} do not end", self.path.display());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                Err(_) => std::thread::sleep(POLL_INTERVAL),
            }
        }
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }
}

/// Removes a cgroup with those below it: a container may have made some.
fn remove_tree(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(directory)
}

pub(super) fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_files_are_read_by_whole_key() {
        let text = "low 0\noom 2\noom_kill 3\noom_group_kill 4\n";
        assert_eq!(keyed(text, "oom_kill"), 3);
        assert_eq!(keyed(text, "kill"), 0);
    }

    #[test]
    fn absent_cgroup_is_destroyed_already() {
        Cgroup::new("/hull-test-absent/none").destroy().unwrap();
    }
}
