//! The journal: what the shim must know again after `kill -9`.
//!
//! ```text
//! <state_dir>/sandboxes/<id>/sandbox.json           SandboxRecord
//! <state_dir>/sandboxes/<id>/containers/<id>.json   ContainerRecord
//! <state_dir>/sandboxes/<id>/logs/<id>.json         how far a container's output is in its log
//! ```
//!
//! A record is written before the thing that it describes is made, and removed after
//! the thing is gone, so whatever exists has a record. Each file is replaced as a
//! whole: temporary file, fsync, rename, fsync of the directory.

mod records;
mod store;

pub use records::{
    ContainerRecord, ExitRecord, LogCheckpoint, SandboxRecord, SlotRecord, VolumeKind, VolumeRecord,
};
pub use store::{Journal, JournalError, write_atomically};
