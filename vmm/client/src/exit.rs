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
}

impl ExitReason {
    /// Exit status of the hull-vmm process.
    pub fn status(self) -> i32 {
        match self {
            ExitReason::GuestShutdown | ExitReason::Stopped => 0,
            ExitReason::GuestPanic => 10,
            ExitReason::VmmError => 1,
            ExitReason::Killed => 137,
        }
    }
}
