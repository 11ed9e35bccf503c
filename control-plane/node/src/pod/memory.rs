//! What a worker remembers between synchronisations that CRI does not report.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::backoff::Backoff;

/// Why a container is not running, in the words of a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `ErrImagePull`, `CrashLoopBackOff` and so on.
    pub reason: String,
    /// The cause.
    pub message: Option<String>,
}

/// Which step of a container's start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// The pull failed.
    Pull,
    /// The image is not there and may not be pulled.
    NeverPull,
    /// The image's name cannot be parsed.
    ImageName,
    /// The runtime could not say whether it has the image.
    Inspect,
    /// A configMap, secret or field is missing.
    Config,
    /// The runtime refused to create the container.
    Create,
    /// The runtime could not start it.
    Run,
    /// The postStart hook failed.
    PostStart,
}

impl StartFailure {
    /// The waiting reason at once after the failure.
    pub fn reason(self) -> &'static str {
        match self {
            StartFailure::Pull => "ErrImagePull",
            StartFailure::NeverPull => "ErrImageNeverPull",
            StartFailure::ImageName => "InvalidImageName",
            StartFailure::Inspect => "ImageInspectError",
            StartFailure::Config => "CreateContainerConfigError",
            StartFailure::Create => "CreateContainerError",
            StartFailure::Run => "RunContainerError",
            StartFailure::PostStart => "PostStartHookError",
        }
    }
}

/// The last failed start of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    /// Which step.
    pub failure: StartFailure,
    /// The cause.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// Not to be tried before.
    pub retry_at: Timestamp,
}

/// A worker's memory. Losing it costs nothing but repeated attempts.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Delays between restarts, by container name.
    pub restarts: Backoff,
    /// Delays between pulls, by container name.
    pub pulls: Backoff,
    /// The last failed start, by container name.
    pub start_errors: HashMap<String, StartError>,
    /// No sandbox is created before this.
    pub sandbox_retry_at: Option<Timestamp>,
    /// The pod was given up for this reason and message (`DeadlineExceeded`).
    pub failed: Option<(String, String)>,
}

impl Memory {
    /// An empty memory with these delays: the first one, and the ceilings of restarts and pulls.
    pub fn new(initial: Duration, restart_max: Duration, pull_max: Duration) -> Self {
        Memory {
            restarts: Backoff::new(initial, restart_max),
            pulls: Backoff::new(initial, pull_max),
            start_errors: HashMap::new(),
            sandbox_retry_at: None,
            failed: None,
        }
    }
}
