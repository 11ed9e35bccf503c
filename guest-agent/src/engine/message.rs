//! What the agent and its engine helpers say to each other, as JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a helper is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The operation.
    pub operation: Operation,
    /// libcontainer's state directory.
    pub state: PathBuf,
    /// Container id.
    pub container: String,
}

/// The operations of the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Creates a container; its process waits for `Start`.
    Create {
        /// Directory with config.json.
        bundle: PathBuf,
        /// Whether it gets a pseudo-terminal.
        tty: bool,
    },
    /// Lets a created container's process execute its command.
    Start,
    /// Starts another process in a running container.
    Exec {
        /// Directory with the container's config.json: its seccomp profile holds for the
        /// new process, too.
        bundle: PathBuf,
        /// OCI `process` as JSON.
        process: PathBuf,
        /// Whether it gets a pseudo-terminal.
        tty: bool,
    },
}

/// A helper's answer. With a pseudo-terminal its master comes along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The new process, in the agent's pid namespace.
    Process {
        /// Process id.
        pid: i32,
    },
    /// Started.
    Started,
    /// It did not work.
    Failed {
        /// libcontainer's reason.
        message: String,
    },
}

/// Why a command could not be executed, in the words of other OCI runtimes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("exec: {command:?}: {reason}")]
pub struct ExecFailure {
    /// What sort of failure.
    pub kind: ExecFailureKind,
    /// The first argument.
    pub command: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Sorts of [`ExecFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecFailureKind {
    /// There is no such file.
    NotFound,
    /// It may not be executed.
    PermissionDenied,
    /// Anything else, such as a file of another architecture.
    Other,
}
