//! All keys of a store, elsewhere: into another store, into a file, back from a file.
//!
//! Values are carried as they are stored, encrypted ones too. A key's time to live is not
//! carried: it stays for good where it arrives. Nobody may write to either store meanwhile, but
//! to one that is backed up: a backup shows one revision.
//!
//! ```text
//! store ─► copy ─► store
//! store ─► backup ──────────────┐
//! store of another process      ├─► format ─► staged: a file ─► restore ─► store
//!     ─► live: a unix socket ───┘
//! ```

mod backup;
mod copy;
mod format;
mod live;
mod staged;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{Revision, StoreError};

pub use backup::{Backup, back_up, restore};
pub use copy::{clear, copy, verify};
pub use live::{StoreSocket, fetch_backup, fetch_status, socket_of};

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Keys done.
    pub done: u64,
    /// Keys to do.
    pub total: u64,
}

/// A part of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Keys are deleted from the target.
    Clear,
    /// Keys are written.
    Copy,
    /// Every key is compared.
    Verify,
}

/// What was transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// Number of keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The source's revision that was transferred.
    pub revision: Revision,
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The source failed.
    #[error("reading the source: {0}")]
    Source(#[source] StoreError),
    /// The target failed.
    #[error("writing the target: {0}")]
    Target(#[source] StoreError),
    /// The target has keys.
    #[error("the target is not empty: it has {0} keys")]
    NotEmpty(u64),
    /// Somebody wrote to the source.
    #[error(
        "the source changed while it was read (revision {before}, then {after}): stop every server that uses it"
    )]
    SourceChanged {
        /// The revision that was read.
        before: Revision,
        /// The newest one afterwards.
        after: Revision,
    },
    /// Somebody wrote to the target.
    #[error("key {0} was written to the target by somebody else")]
    TargetChanged(String),
    /// The comparison found a difference.
    #[error("key {key} differs: {difference}")]
    Differs {
        /// The first key that does.
        key: String,
        /// How.
        difference: &'static str,
    },
    /// A backup's file cannot be used.
    #[error("backup {}: {doing}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The process that has the store offers no backup.
    #[error("no backup is offered at {}: {source}", path.display())]
    NoSocket {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Whoever wrote the backup gave up.
    #[error("backup from {}: broken off: {reason}", name.display())]
    GaveUp {
        /// The socket, or the file.
        name: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is no whole backup.
    #[error("backup {}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

fn file_error(path: &Path, doing: &'static str, source: io::Error) -> TransferError {
    TransferError::File {
        path: path.to_owned(),
        doing,
        source,
    }
}
