//! One reaper for every child of the agent: engine helpers, container and exec
//! processes, and, as PID 1 or child subreaper, orphans.
//!
//! Nobody else in the agent waits for children. Forking an engine helper and
//! reaping exclude each other by one lock, so a helper's pid is registered before
//! its exit can be collected. A container's process is cloned by a helper as a child
//! of the agent, and its pid is known only once the helper reports it: while an
//! [`Expectation`] is held, exits of unknown pids are remembered instead of dropped.
//! A pid is signalled under the same lock, hence never after it has been reaped.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// The signal that killed it, 0 if none.
    pub signal: u32,
    /// Unix time in nanoseconds.
    pub at_ns: i64,
}

/// A process whose end somebody waits for.
#[derive(Debug, Clone)]
pub struct Child {
    pid: i32,
    ended: watch::Receiver<Option<Ended>>,
}

impl Child {
    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the end.
    pub async fn wait(&mut self) -> Ended {
        loop {
            if let Some(ended) = *self.ended.borrow_and_update() {
                return ended;
            }
            if self.ended.changed().await.is_err() {
                // The reaper lives as long as the agent; a lost one cannot tell more.
                return Ended {
                    code: 255,
                    signal: 0,
                    at_ns: now_ns(),
                };
            }
        }
    }
}

/// Collects the agent's children.
#[derive(Debug, Default)]
pub struct Reaper {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    children: HashMap<i32, watch::Sender<Option<Ended>>>,
    unclaimed: VecDeque<(i32, Ended)>,
    expectations: usize,
}

/// While held, exits of unregistered children are remembered, see [`Expectation::claim`].
#[derive(Debug)]
pub struct Expectation(Arc<Reaper>);

impl Reaper {
    /// Starts collecting. Call once, in a tokio runtime, before the first child.
    ///
    /// # Errors
    /// When SIGCHLD cannot be handled.
    pub fn start() -> io::Result<Arc<Reaper>> {
        let reaper = Arc::new(Reaper::default());
        let mut children = signal(SignalKind::child())?;
        let collecting = Arc::clone(&reaper);
        tokio::spawn(async move {
            loop {
                collecting.collect();
                if children.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// Starts a program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut inner = self.inner.lock();
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Ok(inner.register(pid))
    }

    /// Announces a child whose pid is learnt later.
    pub fn expect(self: &Arc<Self>) -> Expectation {
        self.inner.lock().expectations += 1;
        Expectation(Arc::clone(self))
    }

    /// Sends a signal unless the process has been reaped. Says whether it was sent.
    ///
    /// # Errors
    /// EINVAL for a number that is no signal.
    pub fn signal(&self, pid: i32, number: i32) -> io::Result<bool> {
        let signal = Signal::try_from(number);
        let inner = self.inner.lock();
        if !inner.children.contains_key(&pid) {
            return Ok(false);
        }
        let sent = match signal {
            Ok(signal) => kill(Pid::from_raw(pid), signal),
            Err(_) => kill_realtime(pid, number),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn collect(&self) {
        loop {
            let mut inner = self.inner.lock();
            let (pid, code, signal) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code, 0),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid, 128 + signal as i32, signal as u32)
                }
                Err(Errno::EINTR) => continue,
                _ => return,
            };
            inner.record(
                pid.as_raw(),
                Ended {
                    code,
                    signal,
                    at_ns: now_ns(),
                },
            );
        }
    }
}

/// Real-time signals have no [`Signal`].
fn kill_realtime(pid: i32, number: i32) -> Result<(), Errno> {
    // SAFETY: kill takes two integers and touches no memory of ours.
    Errno::result(unsafe { libc::kill(pid, number) }).map(drop)
}

impl Inner {
    fn register(&mut self, pid: i32) -> Child {
        let (sender, ended) = watch::channel(None);
        self.children.insert(pid, sender);
        Child { pid, ended }
    }

    fn record(&mut self, pid: i32, ended: Ended) {
        match self.children.remove(&pid) {
            Some(sender) => {
                sender.send_replace(Some(ended));
            }
            None if self.expectations > 0 => self.unclaimed.push_back((pid, ended)),
            None => {}
        }
    }
}

impl Expectation {
    /// The announced child turned out to be `pid`; it may have ended already.
    pub fn claim(self, pid: i32) -> Child {
        let mut inner = self.0.inner.lock();
        let child = inner.register(pid);
        // The newest: an older one would be a former process with the same number.
        if let Some(at) = inner.unclaimed.iter().rposition(|(ended, _)| *ended == pid)
            && let Some((_, ended)) = inner.unclaimed.remove(at)
        {
            inner.record(pid, ended);
        }
        child
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.expectations -= 1;
        if inner.expectations == 0 {
            inner.unclaimed.clear();
        }
    }
}

/// Unix time in nanoseconds.
pub fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> Ended {
        Ended {
            code,
            signal: 0,
            at_ns: 1,
        }
    }

    #[test]
    fn exit_before_the_pid_is_known_is_not_lost() {
        let reaper = Arc::new(Reaper::default());
        let expectation = reaper.expect();
        reaper.inner.lock().record(7, ended(3));
        let child = expectation.claim(7);
        assert_eq!(*child.ended.borrow(), Some(ended(3)));
        assert!(reaper.inner.lock().unclaimed.is_empty());
    }

    #[test]
    fn orphans_are_forgotten_when_nobody_expects_a_child() {
        let reaper = Arc::new(Reaper::default());
        reaper.inner.lock().record(7, ended(3));
        assert!(reaper.inner.lock().unclaimed.is_empty());
        drop(reaper.expect());
        let child = reaper.expect().claim(7);
        assert_eq!(*child.ended.borrow(), None);
    }

    #[tokio::test]
    async fn collects_exit_codes_and_signals() {
        let reaper = Reaper::start().unwrap();
        let mut exits = reaper
            .spawn(Command::new("sh").args(["-c", "exit 7"]))
            .unwrap();
        assert_eq!(exits.wait().await.code, 7);
        let mut killed = reaper.spawn(Command::new("sleep").arg("100")).unwrap();
        assert!(reaper.signal(killed.pid(), libc::SIGKILL).unwrap());
        let ended = killed.wait().await;
        assert_eq!((ended.code, ended.signal), (137, 9));
        assert!(!reaper.signal(killed.pid(), libc::SIGKILL).unwrap());
    }
}
