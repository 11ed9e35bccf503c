//! The control socket: one JSON request a line, one JSON answer a line. A request
//! that carries a file sends its descriptor with the first byte (SCM_RIGHTS).

use serde::{Deserialize, Serialize};

use crate::rate::RateLimits;

/// What a VMM can be asked.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Answers [`Answer::State`].
    State,
    /// Ends the VM at once. Answers [`Answer::Ok`], then the process exits.
    Stop,
    /// Stops the vCPUs where they are; devices go on with what they have begun.
    Pause,
    /// Lets the vCPUs go on.
    Resume,
    /// Where the vCPUs stand and the state of every device, to look into a VM that does not do
    /// what it should. Answers [`Answer::Dump`].
    Dump,
    /// Prometheus text. Answers [`Answer::Metrics`].
    Metrics,
    /// The newest console output. Answers [`Answer::Console`].
    Console {
        /// At most this many bytes from the end.
        max_bytes: usize,
        /// None of the first so many bytes of the output: the `end` of an earlier answer.
        #[serde(default)]
        after: u64,
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
    /// Gives a network without a tap the one whose descriptor comes with this request; its link
    /// goes up.
    AttachNet {
        /// The network.
        id: String,
    },
    /// Takes a network's tap away; its link goes down.
    DetachNet {
        /// The network.
        id: String,
    },
    /// Changes how much of a disk the guest may use.
    LimitDisk {
        /// The disk.
        serial: String,
        /// What is absent is not limited.
        limits: RateLimits,
    },
    /// Changes how much of a network the guest may use.
    LimitNet {
        /// The network.
        id: String,
        /// Of what the guest receives.
        #[serde(default)]
        receive: RateLimits,
        /// Of what the guest sends.
        #[serde(default)]
        send: RateLimits,
    },
    /// Gives the virtio-fs device its back end: a stream socket that is connected to hull-fsd
    /// comes with this request.
    AttachFs,
    /// hull-fsd only: shows the guest a directory, whose descriptor comes with this request.
    AddShare {
        /// Name in the root directory of the file system.
        name: String,
        /// The guest may not change it.
        read_only: bool,
    },
    /// hull-fsd only: takes a directory away; what the guest has open there becomes stale.
    RemoveShare {
        /// Its name.
        name: String,
    },
}

/// Whether a virtio-fs device has a back end.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum FsState {
    /// Not yet: requests of the guest wait.
    Empty,
    /// It has one.
    Attached,
    /// It had one, which is gone: requests of the guest fail with ENOTCONN.
    Broken,
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
        /// Whether the vCPUs run: not paused and not at their end.
        running: bool,
        /// Serial numbers of the disks that have a backing.
        attached_disks: Vec<String>,
        /// The virtio-fs device, when there is one.
        fs: Option<FsState>,
    },
    /// hull-fsd's answer to [`Request::State`].
    Shares {
        /// The id of the configuration.
        id: String,
        /// Process id, in hull-fsd's own PID namespace.
        pid: u32,
        /// Names of the shares.
        shares: Vec<String>,
    },
    /// See [`Request::Dump`].
    Dump {
        /// A sentence for each vCPU, in order, for people; their form may change. Empty when
        /// they could not be made to leave the guest in time.
        #[serde(default)]
        vcpus: Vec<String>,
        /// The devices, for people; its form may change.
        text: String,
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
        /// Where the text ends, as bytes from the first that the guest wrote. Absent in the
        /// answers of a VMM that does not know [`Request::Console`]'s `after`.
        #[serde(default)]
        end: Option<u64>,
    },
}
