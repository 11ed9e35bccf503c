//! How a VMM ended. Written by the VMM itself to `exit_fd`; when the file is empty
//! the VMM was killed from outside.

use serde::{Deserialize, Serialize};

/// Written once, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct ExitRecord {
    /// Why.
    pub reason: ExitReason,
    /// One sentence for people.
    pub message: String,
    /// Unix time in milliseconds.
    pub at_ms: u64,
}

impl ExitRecord {
    /// An end that is seen at this moment.
    pub fn now(reason: ExitReason, message: impl Into<String>) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            reason,
            message: message.into(),
            at_ms: now.map_or(0, |elapsed| {
                u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
            }),
        }
    }
}

/// The distinct ways in which a VM ends.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum ExitReason {
    /// The guest powered itself off or rebooted.
    GuestShutdown,
    /// The guest kernel panicked.
    GuestPanic,
    /// The VMM itself failed (bad configuration, KVM error, ...).
    VmmError,
    /// It was told to stop over the control socket or by SIGTERM.
    Stopped,
    /// It vanished without a record: killed from outside. Never written by the VMM.
    Killed,
    /// It was killed because hull-fsd, which served it directories of the host, had died.
    /// Written by whoever started both.
    FileServerDied,
    /// It was killed because its guest did not answer when a container had to be killed.
    /// Written by whoever started it.
    GuestUnresponsive,
}

impl ExitReason {
    /// Exit status of the hull-vmm process.
    pub fn status(self) -> i32 {
        match self {
            ExitReason::GuestShutdown | ExitReason::Stopped => 0,
            ExitReason::GuestPanic => 10,
            ExitReason::VmmError => 1,
            ExitReason::Killed | ExitReason::FileServerDied | ExitReason::GuestUnresponsive => 137,
        }
    }
}

/// What a parent learns when the VMM process is gone: the record, or that there is none
/// because it was killed. `status` is what waiting for the process gave, if anybody did.
pub fn read_record(text: &str, status: Option<std::process::ExitStatus>) -> ExitRecord {
    use std::os::unix::process::ExitStatusExt;
    if let Ok(record) = serde_json::from_str(text) {
        return record;
    }
    let message = match status.and_then(|status| status.signal()) {
        Some(libc::SIGSYS) => {
            "hull-vmm made a system call that its seccomp filter forbids (signal 31)".to_owned()
        }
        Some(signal) => format!("hull-vmm was killed by signal {signal}"),
        None => "hull-vmm vanished without an exit record".to_owned(),
    };
    ExitRecord::now(ExitReason::Killed, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_record_is_read_back() {
        let record = ExitRecord {
            reason: ExitReason::GuestPanic,
            message: "m".into(),
            at_ms: 5,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(read_record(&text, None), record);
    }

    #[test]
    fn no_record_means_killed_and_names_the_signal() {
        let status = std::process::ExitStatus::from_raw(libc::SIGSYS);
        let record = read_record("", Some(status));
        assert_eq!(record.reason, ExitReason::Killed);
        assert!(record.message.contains("seccomp"));
        let record = read_record("{\"reason\"", Some(std::process::ExitStatus::from_raw(9)));
        assert!(record.message.contains("signal 9"));
        assert_eq!(record.reason.status(), 137);
    }
}
