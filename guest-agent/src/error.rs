//! What a request can end in, and the gRPC status that each end becomes.

use tonic::{Code, Status};

use crate::container::devices::DeviceError;
use crate::container::limits::LimitError;
use crate::container::rootfs::RootFsError;
use crate::container::spec::SpecError;
use crate::disk::DiskError;
use crate::engine::EngineError;
use crate::engine::message::{ExecFailure, ExecFailureKind};
use crate::name::InvalidName;
use crate::network::NetworkError;
use crate::shares::ShareError;
use crate::volume::VolumeError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that may not be used.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A bad argument.
    #[error("{0}")]
    Invalid(String),
    /// Nothing goes by this id.
    #[error("{what} {id:?} does not exist")]
    NotFound {
        /// Container, exec or volume.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Another one goes by this id.
    #[error("{what} {id:?} exists already and was made from another request")]
    Exists {
        /// Container, exec or volume.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Not in this state.
    #[error("{0}")]
    State(String),
    /// The protocol versions differ.
    #[error("the host speaks agent protocol {host}, this agent {agent}")]
    Version {
        /// The host's major version.
        host: u32,
        /// The agent's.
        agent: u32,
    },
    /// The command cannot be executed.
    #[error(transparent)]
    Command(#[from] ExecFailure),
    /// See [`SpecError`].
    #[error("container spec: {0}")]
    Spec(#[from] SpecError),
    /// See [`DeviceError`].
    #[error("container spec: {0}")]
    Devices(#[from] DeviceError),
    /// See [`LimitError`].
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// See [`EngineError`].
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// See [`DiskError`].
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// See [`RootFsError`].
    #[error(transparent)]
    RootFs(#[from] RootFsError),
    /// See [`NetworkError`].
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// See [`VolumeError`].
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// See [`ShareError`].
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A task of the agent ended early.
    #[error("the agent's worker failed: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl Error {
    /// Wraps an I/O error with what was being done.
    pub fn io<E: Into<std::io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Error {
        let doing = doing.into();
        move |source| Error::Io {
            doing,
            source: source.into(),
        }
    }

    fn code(&self) -> Code {
        match self {
            Error::Name(_)
            | Error::Invalid(_)
            | Error::Devices(DeviceError::Rule(_))
            | Error::Limit(_) => Code::InvalidArgument,
            Error::NotFound { .. } => Code::NotFound,
            Error::Exists { .. } => Code::AlreadyExists,
            Error::State(_) | Error::Version { .. } => Code::FailedPrecondition,
            Error::Command(failure) => match failure.kind {
                ExecFailureKind::NotFound => Code::NotFound,
                ExecFailureKind::PermissionDenied => Code::PermissionDenied,
                ExecFailureKind::Other => Code::InvalidArgument,
            },
            Error::Spec(error) => error.code(),
            Error::Disk(error) => error.code(),
            Error::Volume(error) => error.code(),
            Error::Share(error) => error.code(),
            Error::Network(error) => error.code(),
            Error::RootFs(error) => error.code(),
            Error::Devices(_) | Error::Engine(_) | Error::Io { .. } | Error::Worker(_) => {
                Code::Internal
            }
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::new(error.code(), error.to_string())
    }
}
