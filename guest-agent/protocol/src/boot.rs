//! Boot phases. While it starts, the agent dials [`crate::BOOT_PORT`] on the host and
//! writes one JSON object per line; the same phases go to the serial console as
//! `hull-agent: phase=<name>`, so that a guest without vsock still says how far it came.

use serde::{Deserialize, Serialize};

/// How far the guest has come. Ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// PID 1 runs.
    Init,
    /// /proc, /sys, /dev, cgroups are mounted.
    Mounts,
    /// Kernel modules are loaded (nothing to do with a built-in kernel).
    Modules,
    /// The control and stream ports accept connections.
    Ready,
}

impl Phase {
    /// The name used on the wire, in logs and in error messages.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Init => "init",
            Phase::Mounts => "mounts",
            Phase::Modules => "modules",
            Phase::Ready => "ready",
        }
    }
}

/// One line on the boot connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootLine {
    /// The phase that was just finished.
    pub phase: Phase,
    /// Milliseconds since the guest kernel started (CLOCK_BOOTTIME).
    pub uptime_ms: u64,
    /// An error that stops the boot, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
