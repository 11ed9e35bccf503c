//! What an RPC can fail with, and the gRPC status that says so.

use crate::cni::CniError;
use crate::guest::GuestError;
use crate::ids::LookupError;
use crate::journal::JournalError;
use crate::network::pod::NetworkError;
use crate::vmm::VmmError;
use tonic::Status;

/// The phases of starting a sandbox, in order. Their names are in errors, metrics and
/// the verbose status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StartPhase {
    /// Making the network namespace.
    Netns,
    /// CNI ADD, tap and redirect.
    Cni,
    /// Disks, cgroup, the hull-vmm process.
    VmmStart,
    /// From the first guest instruction to PID 1.
    Kernel,
    /// From PID 1 to a sandbox that takes containers.
    Agent,
}

impl StartPhase {
    /// As in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            StartPhase::Netns => "netns",
            StartPhase::Cni => "cni",
            StartPhase::VmmStart => "vmm_start",
            StartPhase::Kernel => "kernel",
            StartPhase::Agent => "agent",
        }
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sandbox, container or image does not exist.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// "sandbox", "container" or "image".
        kind: &'static str,
        /// As the client named it.
        id: String,
    },
    /// An id prefix that fits several.
    #[error("{kind}: {source}")]
    Ambiguous {
        /// "sandbox" or "container".
        kind: &'static str,
        /// Which prefix.
        source: LookupError,
    },
    /// A sandbox or container of this name and attempt exists.
    #[error("failed to reserve {kind} name {name:?}: name {name:?} is reserved for {owner:?}")]
    Reserved {
        /// "sandbox" or "container".
        kind: &'static str,
        /// Name as built from the metadata.
        name: String,
        /// Id of the other one.
        owner: String,
    },
    /// The request makes no sense.
    #[error("{0}")]
    InvalidArgument(String),
    /// Not there yet; names what.
    #[error("unimplemented: {0}")]
    Unimplemented(String),
    /// The state forbids it.
    #[error("{0}")]
    FailedPrecondition(String),
    /// Something ran out.
    #[error("{0}")]
    Exhausted(String),
    /// It took too long.
    #[error("{0}")]
    TimedOut(String),
    /// A sandbox did not come up.
    #[error("starting the sandbox failed in phase {}: {source}{console}", .phase.name())]
    Start {
        /// How far it came.
        phase: StartPhase,
        /// Why it went no further.
        source: Box<Error>,
        /// The guest's last console lines with a label, or nothing.
        console: String,
    },
    /// The boot ended before the agent was ready.
    #[error("{0}")]
    Boot(#[from] crate::sandbox::boot::BootError),
    /// Network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// CNI outside of a sandbox's start.
    #[error(transparent)]
    Cni(#[from] CniError),
    /// The VMM.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// The agent.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Pulling an image.
    #[error(transparent)]
    Pull(#[from] hull_image::PullError),
    /// Removing an image.
    #[error(transparent)]
    RemoveImage(#[from] hull_image::RemoveError),
    /// A file or directory of the shim's own.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A task of the shim died.
    #[error("{0} ended unexpectedly")]
    Task(&'static str),
}

impl Error {
    /// For `map_err` on file operations.
    pub fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let action = action.into();
        move |source| Error::Io { action, source }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let text = error.to_string();
        match &error {
            Error::NotFound { .. } => Status::not_found(text),
            Error::Reserved { .. } => Status::already_exists(text),
            Error::InvalidArgument(_) | Error::Ambiguous { .. } => Status::invalid_argument(text),
            Error::Unimplemented(_) => Status::unimplemented(text),
            Error::FailedPrecondition(_) | Error::RemoveImage(_) => {
                Status::failed_precondition(text)
            }
            Error::Exhausted(_) => Status::resource_exhausted(text),
            Error::TimedOut(_) => Status::deadline_exceeded(text),
            Error::Pull(pull) => pull_status(pull, text),
            _ => Status::unknown(text),
        }
    }
}

fn pull_status(error: &hull_image::PullError, text: String) -> Status {
    use hull_image::PullCause;
    match error.cause.as_ref() {
        PullCause::NotFound { .. } => Status::not_found(text),
        PullCause::InvalidReference(_) => Status::invalid_argument(text),
        PullCause::Unauthorized(_) => Status::unauthenticated(text),
        PullCause::Unavailable(_) => Status::unavailable(text),
        _ => Status::unknown(text),
    }
}
