//! The control socket: one JSON request a line, one JSON answer a line. A request
//! that carries a file sends its descriptor with the first byte (SCM_RIGHTS).

use serde::{Deserialize, Serialize};

/// What a VMM can be asked.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Answers [`Answer::State`].
    State,
    /// Ends the VM at once. Answers [`Answer::Ok`], then the process exits.
    Stop,
    /// Prometheus text. Answers [`Answer::Metrics`].
    Metrics,
    /// The newest console output. Answers [`Answer::Console`].
    Console {
        /// At most this many bytes from the end.
        max_bytes: usize,
    },
    /// Gives a disk without backing the file whose descriptor comes with this request.
    AttachDisk {
        /// The disk.
        serial: String,
    },
    /// Asks the guest to give `mib` MiB of its RAM back to the host. It follows when and as far
    /// as it can; the metric `hull_vmm_balloon_bytes` tells how far.
    ResizeBalloon {
        /// Size of the balloon.
        mib: u32,
    },
    /// Takes a disk's backing away. The guest must have unmounted it.
    DetachDisk {
        /// The disk.
        serial: String,
    },
}

/// A VMM's answer.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Done.
    Ok,
    /// Refused or failed.
    Error {
        /// One sentence.
        message: String,
    },
    /// See [`Request::State`].
    State {
        /// The id of the configuration.
        id: String,
        /// Process id.
        pid: u32,
        /// Milliseconds since the vCPUs started.
        uptime_ms: u64,
        /// Whether the vCPUs run.
        running: bool,
        /// Serial numbers of the disks that have a backing.
        attached_disks: Vec<String>,
    },
    /// See [`Request::Metrics`].
    Metrics {
        /// Prometheus text exposition format.
        text: String,
    },
    /// See [`Request::Console`].
    Console {
        /// Lossy UTF-8.
        text: String,
    },
}
