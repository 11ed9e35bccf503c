//! A process of the host, identified so that a recycled pid is never mistaken for it.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How often a process that should end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A pid with the time the process started, in clock ticks since boot (proc(5), `stat` field 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: i32,
    /// Its start time in clock ticks.
    pub start: u64,
}

impl ProcessId {
    /// Identifies a process that runs now.
    pub fn of(pid: i32) -> Option<Self> {
        let (state, start) = stat(pid)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, start })
    }

    /// Whether that very process still runs (a zombie does not).
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Ends the process: SIGTERM, then SIGKILL after `grace`. Returns once it is gone.
    pub fn end(self, grace: Duration) {
        let pid = Pid::from_raw(self.pid);
        for (signal, limit) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, grace)] {
            if !self.is_alive() {
                return;
            }
            let _ = kill(pid, signal);
            let deadline = Instant::now() + limit;
            while self.is_alive() && Instant::now() < deadline {
                std::thread::sleep(POLL);
            }
        }
    }
}

fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

/// State and start time; the command name may hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    // Field 3 is the state, field 22 the start time.
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn parses_a_name_with_parentheses() {
        let text = "7 (a) (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0 18446744073709551615";
        assert_eq!(parse_stat(text), Some(('S', 12345)));
    }

    #[test]
    fn a_process_with_the_same_pid_but_another_start_is_not_it() {
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        assert!(
            !ProcessId {
                start: own.start + 1,
                ..own
            }
            .is_alive()
        );
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id() as i32).unwrap();
        id.end(Duration::from_secs(5));
        assert!(!id.is_alive());
        child.wait().unwrap();
    }
}
