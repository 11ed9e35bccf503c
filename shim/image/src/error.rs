//! Errors of the store. Each names the image, the registry and the cause.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::reference::ReferenceError;

/// The store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the store open.
    #[error("image store {root} is in use by another process")]
    InUse {
        /// Directory of the store.
        root: PathBuf,
    },
    /// The index is there and cannot be understood.
    #[error("reading the image index {path}: {source}")]
    Index {
        /// The index file.
        path: PathBuf,
        /// Why it could not be parsed.
        source: serde_json::Error,
    },
    /// A registry's configuration is wrong.
    #[error("configuration of registry {registry}: {reason}")]
    Registry {
        /// Name of the registry as configured.
        registry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The filesystem refused something.
    #[error("opening the image store: {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// An image could not be pulled. Nothing of it is left in the store.
#[derive(Debug, Error)]
#[error("pulling image {image} from {registry}: {cause}{}", also_tried(.tried))]
pub struct PullError {
    /// The image, normalised where it could be parsed.
    pub image: String,
    /// The endpoint that gave the deciding answer, or the registry's name.
    pub registry: String,
    /// What went wrong.
    #[source]
    pub cause: Box<PullCause>,
    /// Other endpoints that were tried, each with what it answered.
    pub tried: Vec<(String, String)>,
}

fn also_tried(tried: &[(String, String)]) -> String {
    tried
        .iter()
        .map(|(endpoint, answer)| format!("; also tried {endpoint}: {answer}"))
        .collect()
}

/// Why an image could not be pulled.
#[derive(Debug, Error)]
pub enum PullCause {
    /// The reference is not one.
    #[error("invalid reference: {0}")]
    InvalidReference(#[from] ReferenceError),
    /// The registry does not know the repository, tag, digest or blob.
    #[error("not found: {what}: {detail}")]
    NotFound {
        /// What was asked for (`manifest latest`, `blob sha256:…`).
        what: String,
        /// The registry's words.
        detail: String,
    },
    /// The registry wants credentials, or other ones.
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// The registry could not be reached or is not able to serve.
    #[error("registry unavailable: {0}")]
    Unavailable(String),
    /// The registry answers against the distribution specification.
    #[error("unexpected answer of the registry: {0}")]
    Protocol(String),
    /// Content does not have the digest it was asked for by.
    #[error("digest mismatch: {what}: expected {expected}, got {actual}")]
    DigestMismatch {
        /// Which content: `manifest`, `config`, `layer 2`, `layer 2 uncompressed (diff_id)`.
        what: String,
        /// The digest that was promised.
        expected: String,
        /// The digest of what arrived.
        actual: String,
    },
    /// A layer holds a path that leaves the image's root.
    #[error("unsafe path in layer {layer}: {path}: {reason}")]
    UnsafePath {
        /// Index of the layer, from 0.
        layer: usize,
        /// The path, with unprintable bytes escaped.
        path: String,
        /// Why it is unsafe.
        reason: &'static str,
    },
    /// A layer is not a well-formed archive.
    #[error("invalid layer {layer}: {reason}")]
    InvalidLayer {
        /// Index of the layer, from 0.
        layer: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest or configuration is not well-formed.
    #[error("invalid image: {0}")]
    InvalidImage(String),
    /// The content is of a kind that this store does not handle.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The image has no variant for this machine.
    #[error("no matching platform: wanted {wanted}, image has {available}")]
    NoMatchingPlatform {
        /// This machine's platform.
        wanted: String,
        /// Platforms of the image.
        available: String,
    },
    /// The store's filesystem is full.
    #[error("disk full: no space left in the image store for {what}: {source}")]
    DiskFull {
        /// What was being written.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// A bound on images was passed.
    #[error("too large: {what}: {actual} is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// How large it is or claims to be.
        actual: u64,
        /// The limit, see [`Limits`](crate::Limits).
        limit: u64,
    },
    /// The store's filesystem refused something else.
    #[error("writing to the image store: {what}: {source}")]
    Store {
        /// What was being done.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// A part of the pull ended without a result.
    #[error("internal: {0}")]
    Internal(String),
}

/// The kinds of [`PullError`] that a CRI server tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullErrorKind {
    /// The reference or the image is malformed: asking again does not help.
    Invalid,
    /// The image does not exist.
    NotFound,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// The registry is down or unreachable (kubelet's `RegistryUnavailable`).
    Unavailable,
    /// Content does not match its digest.
    DigestMismatch,
    /// No variant for this machine.
    NoMatchingPlatform,
    /// Disk full or a limit passed.
    ResourceExhausted,
    /// The store itself failed.
    Internal,
}

impl PullError {
    pub(crate) fn new(image: &str, registry: &str, cause: PullCause) -> Self {
        Self {
            image: image.to_owned(),
            registry: registry.to_owned(),
            cause: Box::new(cause),
            tried: Vec::new(),
        }
    }

    /// The kind, for a status code.
    pub fn kind(&self) -> PullErrorKind {
        self.cause.kind()
    }
}

impl PullCause {
    /// The kind, for a status code.
    pub fn kind(&self) -> PullErrorKind {
        match self {
            Self::InvalidReference(_)
            | Self::UnsafePath { .. }
            | Self::InvalidLayer { .. }
            | Self::InvalidImage(_)
            | Self::Unsupported(_) => PullErrorKind::Invalid,
            Self::NotFound { .. } => PullErrorKind::NotFound,
            Self::Unauthorized(_) => PullErrorKind::Unauthorized,
            Self::Unavailable(_) | Self::Protocol(_) => PullErrorKind::Unavailable,
            Self::DigestMismatch { .. } => PullErrorKind::DigestMismatch,
            Self::NoMatchingPlatform { .. } => PullErrorKind::NoMatchingPlatform,
            Self::DiskFull { .. } | Self::TooLarge { .. } => PullErrorKind::ResourceExhausted,
            Self::Store { .. } | Self::Internal(_) => PullErrorKind::Internal,
        }
    }

    /// An error of the store's own filesystem, with a full disk told apart.
    pub(crate) fn store(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { what, source }
            }
            _ => Self::Store { what, source },
        }
    }
}

/// An image could not be removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// A sandbox or container still uses the image.
    #[error("image {image} is in use by {}", .holders.join(", "))]
    InUse {
        /// Id of the image.
        image: String,
        /// Who holds a lease on it.
        holders: Vec<String>,
    },
    /// The reference is not one.
    #[error("invalid image reference: {0}")]
    InvalidReference(#[from] ReferenceError),
    /// The filesystem refused.
    #[error("removing image {image}: {source}")]
    Io {
        /// Id of the image.
        image: String,
        /// Why it failed.
        source: io::Error,
    },
}
