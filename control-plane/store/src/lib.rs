//! The store behind the API server: a revisioned map from key to bytes with
//! transactions and watches, in the shape of etcd's key-value API.
//!
//! The API server is its only user. [`Store`] is the trait; [`embedded`] is the
//! single-file implementation, [`mod@etcd`] the one in an etcd cluster. The conformance suite runs on every
//! implementation.

#[cfg(test)]
mod conformance;
pub mod embedded;
pub mod encryption;
pub mod etcd;
#[cfg(test)]
mod model_tests;
pub mod transfer;

use std::{ops::Range, pin::Pin, time::Duration};

use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};

/// A revision of the whole store: grows by one with each transaction that changes something.
/// 0 is "none": an empty store that was never written.
pub type Revision = u64;

/// A key's value at some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, e.g. `/registry/pods/default/nginx`.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Revision of the transaction that created the key.
    pub create_revision: Revision,
    /// Revision of the transaction that wrote this value.
    pub mod_revision: Revision,
}

/// A consistent part of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// In key order.
    pub items: Vec<KeyValue>,
    /// The revision the whole page shows.
    pub revision: Revision,
    /// Keys after the last one of this page, at that revision.
    pub remaining: u64,
}

/// What must hold for a transaction to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent(String),
    /// The key exists and was last written at this revision.
    ModRevision(String, Revision),
}

impl Condition {
    /// The key it is about.
    pub fn key(&self) -> &str {
        match self {
            Condition::Absent(key) | Condition::ModRevision(key, _) => key,
        }
    }

    fn into_key(self) -> String {
        match self {
            Condition::Absent(key) | Condition::ModRevision(key, _) => key,
        }
    }

    /// Whether it holds when the key's state is this.
    pub fn holds(&self, current: Option<&KeyValue>) -> bool {
        match self {
            Condition::Absent(_) => current.is_none(),
            Condition::ModRevision(_, revision) => {
                current.is_some_and(|pair| pair.mod_revision == *revision)
            }
        }
    }
}

/// What a transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces.
    Put(String, Bytes),
    /// Creates or replaces; the store deletes the key by itself once this long has passed since
    /// the write, at the latest a twentieth and [`EXPIRY_SLACK`] later. A later write decides
    /// anew.
    PutExpiring(String, Bytes, Duration),
    /// Deletes; no effect when the key is absent.
    Delete(String),
}

/// How late the store may delete a key that has reached its end, besides a twentieth of its time.
pub const EXPIRY_SLACK: Duration = Duration::from_secs(15);

impl Write {
    /// The key it changes.
    pub fn key(&self) -> &str {
        match self {
            Write::Put(key, _) | Write::PutExpiring(key, ..) | Write::Delete(key) => key,
        }
    }
}

/// The result of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOutcome {
    /// Committed and durable, at this revision. A transaction that changes nothing (no writes,
    /// or only deletions of absent keys) takes no revision: this is then the newest one.
    Committed(Revision),
    /// A condition did not hold: the key's current state, for the first one that failed.
    Conflict {
        /// The key of that condition.
        key: String,
        /// What is there now.
        current: Option<KeyValue>,
    },
}

/// One change, in revision order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Created (`previous` is `None`) or replaced.
    Put {
        /// New state.
        current: KeyValue,
        /// State before.
        previous: Option<KeyValue>,
    },
    /// Deleted.
    Delete {
        /// State before.
        previous: KeyValue,
        /// Revision of the deletion.
        revision: Revision,
    },
    /// Every change up to and including this revision has been delivered.
    Progress(Revision),
}

impl WatchEvent {
    /// The key that changed.
    pub fn key(&self) -> Option<&str> {
        match self {
            WatchEvent::Put { current: pair, .. } | WatchEvent::Delete { previous: pair, .. } => {
                Some(&pair.key)
            }
            WatchEvent::Progress(_) => None,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            WatchEvent::Put { current, .. } => current.mod_revision,
            WatchEvent::Delete { revision, .. } | WatchEvent::Progress(revision) => *revision,
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The asked revision was compacted away: list again.
    #[error("revision {asked} has been compacted; the oldest is {oldest}")]
    Compacted {
        /// What was asked.
        asked: Revision,
        /// What is still there.
        oldest: Revision,
    },
    /// The asked revision has not happened yet.
    #[error("revision {asked} is in the future; the current one is {current}")]
    Future {
        /// What was asked.
        asked: Revision,
        /// The newest.
        current: Revision,
    },
    /// The file or the disk failed (full, read-only, corrupt).
    #[error("store failed while {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store's server could not be reached, or gave no answer. A transaction may or may not
    /// have happened.
    #[error("store unavailable while {doing} (etcd at {endpoints}): {source}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// All its members.
        endpoints: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store's server took too long. A transaction may or may not have happened.
    #[error("store gave no answer within {limit:?} while {doing} (etcd at {endpoints})")]
    TimedOut {
        /// What was being done.
        doing: &'static str,
        /// The time-out.
        limit: Duration,
        /// All its members.
        endpoints: String,
    },
    /// A value or a transaction is larger than the store takes.
    #[error("too large for the store, while {doing}: {source}")]
    TooLarge {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has the store open.
    #[error("store file {path} is in use by another process")]
    Locked {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A value cannot be decrypted, or encrypted.
    #[error("value of {key} cannot be used: {reason}")]
    Sealed {
        /// The key.
        key: String,
        /// Why.
        reason: &'static str,
    },
    /// The server has forgotten what lets a key end by itself; asked again, it makes another.
    #[error("the store's lease is gone")]
    LeaseGone,
    /// The store has been shut down.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the cause is a full disk (or an exceeded quota): writes work again once there is
    /// space.
    pub fn is_out_of_space(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return matches!(
                    io.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                );
            }
            cause = error.source();
        }
        false
    }
}

/// How a store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `embedded` or `etcd`.
    pub engine: String,
    /// The newest revision.
    pub revision: Revision,
    /// Number of keys.
    pub keys: u64,
    /// The file, or the members.
    pub members: Vec<MemberStatus>,
}

/// How one copy of the data is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its file or address.
    pub name: String,
    /// What is known of it, or why nothing is.
    pub state: Result<MemberState, String>,
}

/// What is known of one copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// Of the program that keeps it.
    pub version: String,
    /// Size on its disk.
    pub bytes: u64,
    /// Whether the others follow it.
    pub leader: bool,
}

/// Changes of a range. Ends with an error when the watcher fell behind compaction.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, StoreError>> + Send>>;

/// A revisioned key-value store. Every method is linearisable.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// One key, now.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError>;
    /// Keys in `range` (end exclusive), at `revision` or now, at most `limit` (0: all).
    async fn list(
        &self,
        range: Range<String>,
        revision: Option<Revision>,
        limit: usize,
    ) -> Result<ListPage, StoreError>;
    /// Number of keys in `range`, now.
    async fn count(&self, range: Range<String>) -> Result<u64, StoreError>;
    /// Checks all conditions, then does all writes, at one revision; durable when it returns.
    /// Of several writes to one key only the last takes effect. After [`StoreError::Io`] the
    /// transaction may or may not have happened (as after a time-out): read to know.
    async fn txn(
        &self,
        conditions: Vec<Condition>,
        writes: Vec<Write>,
    ) -> Result<TxnOutcome, StoreError>;
    /// Changes of keys in `range` after revision `after` (`None`: from now on). A
    /// [`WatchEvent::Progress`] comes at least every [`PROGRESS_INTERVAL`] while nothing changes.
    async fn watch(
        &self,
        range: Range<String>,
        after: Option<Revision>,
    ) -> Result<WatchStream, StoreError>;
    /// The newest revision.
    async fn revision(&self) -> Result<Revision, StoreError>;
    /// Forgets history before `revision`: older lists and watches fail with [`StoreError::Compacted`].
    /// Does nothing when more is forgotten already.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;
    /// How the store is.
    async fn status(&self) -> Result<StoreStatus, StoreError>;
}

/// Longest silence on a watch.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The range of all keys that begin with `prefix`.
pub fn prefix_range(prefix: &str) -> Range<String> {
    // Keys are UTF-8 text: no key that starts with `prefix` sorts after `prefix` + U+10FFFF.
    prefix.to_string()..format!("{prefix}\u{10FFFF}")
}

/// The effective writes of a transaction, in the order in which they take effect: the last one
/// of each key.
fn last_of_each_key(writes: Vec<Write>) -> Vec<Write> {
    let mut effective: Vec<Write> = Vec::with_capacity(writes.len());
    let several = writes.len() > 1;
    for write in writes {
        if several {
            effective.retain(|earlier| earlier.key() != write.key());
        }
        effective.push(write);
    }
    effective
}
