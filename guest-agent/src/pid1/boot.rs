//! Tells the console and the host how far the boot has come.
//!
//! The vsock driver may be a module that is loaded late, and the host may listen late
//! or never: phases that could not be sent are sent with the next one.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hull_agent_protocol::BOOT_PORT;
use hull_agent_protocol::boot::{BootLine, Phase};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};

/// How often the last phase or an error is tried to be sent.
const LAST_ATTEMPTS: usize = 3;
/// Pause between these attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);

/// Reports phases in order.
#[derive(Debug)]
pub struct Reporter {
    phase: Phase,
    unsent: Vec<BootLine>,
    host: Option<std::fs::File>,
}

impl Reporter {
    /// Nothing reported yet.
    pub fn new() -> Reporter {
        Reporter {
            phase: Phase::Init,
            unsent: Vec::new(),
            host: None,
        }
    }

    /// `phase` is finished.
    pub fn report(&mut self, phase: Phase) {
        self.phase = phase;
        eprintln!("hull-agent: phase={}", phase.name());
        self.push(None);
        self.send();
    }

    /// The last phase: tries a little harder, then hangs up.
    pub fn report_ready(&mut self) {
        self.report(Phase::Ready);
        self.insist();
        self.host = None;
    }

    /// The boot ends here.
    pub fn fail(&mut self, error: &str) {
        eprintln!(
            "hull-agent: fatal after phase={}: {error}",
            self.phase.name()
        );
        self.push(Some(error.to_owned()));
        self.send();
        self.insist();
    }

    fn push(&mut self, error: Option<String>) {
        self.unsent.push(BootLine {
            phase: self.phase,
            uptime_ms: uptime_ms(),
            error,
        });
    }

    fn insist(&mut self) {
        for _ in 1..LAST_ATTEMPTS {
            if self.unsent.is_empty() {
                return;
            }
            std::thread::sleep(ATTEMPT_PAUSE);
            self.send();
        }
    }

    /// Sends what is unsent if the host listens.
    fn send(&mut self) {
        if self.host.is_none() {
            self.host = dial().map(std::fs::File::from);
        }
        let Some(host) = &mut self.host else {
            return;
        };
        let mut text = Vec::new();
        for line in &self.unsent {
            if serde_json::to_writer(&mut text, line).is_ok() {
                text.push(b'\n');
            }
        }
        match host.write_all(&text) {
            Ok(()) => self.unsent.clear(),
            Err(_) => self.host = None,
        }
    }
}

fn dial() -> Option<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Vsock, SockType::Stream, flags, None).ok()?;
    let host = VsockAddr::new(libc::VMADDR_CID_HOST, BOOT_PORT);
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &host).ok()?;
    Some(fd)
}

fn uptime_ms() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime writes one timespec, which outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000
}
