//! The store in one file on one machine.
//!
//! ```text
//! get list count ──► Index (in memory: every key, several revisions) ◄── watch (pulls history)
//!                      ▲ apply, after fsync
//! txn ──► queue ──► writer thread ──► redb file (the newest value of every key)
//! ```
//!
//! - The file holds the newest state and the revision. [`Index`](index::Index) holds that state
//!   in memory plus the recent changes, so reads and watches never touch the disk.
//! - One writer thread takes all queued transactions, checks each one's conditions in order,
//!   writes them as one redb transaction (one fsync) and only then shows them to readers: what
//!   a reader or watcher saw is durable.
//! - A watch is a cursor into the shared history. The writer never waits for a watcher; one that
//!   falls behind the retained history ends with [`StoreError::Compacted`].
//! - History is not on disk: after a restart the oldest revision is the newest one, and a watch
//!   from before it is told to list again.
//! - When the disk fails, transactions fail with [`StoreError::Io`], reads go on, and each later
//!   transaction tries to reopen the file.

mod disk;
mod expiry;
mod index;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Condition, KeyValue, ListPage, MemberState, MemberStatus, Revision, Store, StoreError,
    StoreStatus, TxnOutcome, WatchStream, Write,
};

/// How much history is kept. Whichever limit is reached first drops the oldest changes.
#[derive(Debug, Clone)]
pub struct Retention {
    /// Changes older than this are dropped when the next transaction commits.
    pub max_age: Duration,
    /// Most changes kept.
    pub max_changes: usize,
    /// Most bytes of values kept by the history.
    pub max_bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            max_age: HISTORY_MAX_AGE,
            max_changes: HISTORY_MAX_CHANGES,
            max_bytes: HISTORY_MAX_BYTES,
        }
    }
}

/// Default [`Retention::max_age`]: as long as a paged list may take, as in Kubernetes.
pub const HISTORY_MAX_AGE: Duration = Duration::from_secs(300);
/// Default [`Retention::max_changes`].
pub const HISTORY_MAX_CHANGES: usize = 200_000;
/// Default [`Retention::max_bytes`].
pub const HISTORY_MAX_BYTES: usize = 256 << 20;

/// Transactions that may wait for the writer; further callers wait for room.
const QUEUE_LENGTH: usize = 4096;

/// The single-file store. Dropping it finishes what is queued and closes the file.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<writer::Request>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    path: PathBuf,
    file: std::fs::File,
}

/// What the writer, the readers and the watchers share.
struct Shared {
    state: RwLock<State>,
    closed: AtomicBool,
    alarm: expiry::Alarm,
}

/// The index and the watchers move together under one lock, so a watcher's cursor always says
/// which prefix of the history it has been given.
struct State {
    index: index::Index,
    watchers: watch::Watchers,
}

impl EmbeddedStore {
    /// Opens or creates the file, with the default [`Retention`].
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it, [`StoreError::Io`] when it cannot be
    /// read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, Retention::default())
    }

    /// Opens or creates the file.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open_with(path: impl AsRef<Path>, retention: Retention) -> Result<Self, StoreError> {
        let (disk, loaded) = disk::Disk::open(path.as_ref(), 0)?;
        Self::run(path.as_ref(), disk, loaded, retention)
    }

    /// Creates the file; its revisions go on after `revision`. For data that comes from
    /// elsewhere: whoever knows it must not see revisions twice.
    ///
    /// # Errors
    /// When the file exists already, and as [`EmbeddedStore::open`].
    pub fn create_after(path: impl AsRef<Path>, revision: Revision) -> Result<Self, StoreError> {
        if path.as_ref().exists() {
            return Err(StoreError::Io {
                doing: "creating the file",
                source: format!("{} exists already", path.as_ref().display()).into(),
            });
        }
        let (disk, loaded) = disk::Disk::open(path.as_ref(), revision)?;
        Self::run(path.as_ref(), disk, loaded, Retention::default())
    }

    /// Gives unused space of a file that nobody has open back to the file system; its size
    /// before and after.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn shrink(path: impl AsRef<Path>) -> Result<(u64, u64), StoreError> {
        let failed = |source| StoreError::Io {
            doing: "reading the file's size",
            source: Box::new(source),
        };
        let (mut disk, _) = disk::Disk::open(path.as_ref(), 0)?;
        let file = disk.handle().map_err(failed)?;
        let before = file.metadata().map_err(failed)?.len();
        disk.shrink()
            .map_err(|error| error.while_doing("shrinking the file"))?;
        Ok((before, file.metadata().map_err(failed)?.len()))
    }

    fn run(
        path: &Path,
        disk: disk::Disk,
        loaded: disk::Loaded,
        retention: Retention,
    ) -> Result<Self, StoreError> {
        tracing::info!(
            path = %path.display(),
            revision = loaded.revision,
            keys = loaded.entries.len(),
            "store opened"
        );
        let shared = Arc::new(Shared {
            state: RwLock::new(State {
                index: index::Index::load(loaded.revision, loaded.entries),
                watchers: watch::Watchers::default(),
            }),
            closed: AtomicBool::new(false),
            alarm: expiry::Alarm::default(),
        });
        let (queue, requests) = mpsc::channel(QUEUE_LENGTH);
        let file = disk.handle().map_err(|source| StoreError::Io {
            doing: "opening the file",
            source: Box::new(source),
        })?;
        let writer = writer::Writer::new(shared.clone(), disk, retention);
        let mut store = EmbeddedStore {
            shared: shared.clone(),
            queue: Some(queue.clone()),
            threads: Vec::new(),
            path: path.to_owned(),
            file,
        };
        store.spawn("store-expiry", move || expiry::run(&shared, &queue))?;
        store.spawn("store-writer", move || writer.run(requests))?;
        Ok(store)
    }

    fn spawn(
        &mut self,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(body)
            .map_err(|source| StoreError::Io {
                doing: "starting a thread",
                source: Box::new(source),
            })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.queue = None;
        self.shared.alarm.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        self.shared.closed.store(true, Ordering::Release);
        self.shared.state.read().watchers.wake_all();
    }
}

#[async_trait::async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        Ok(self.shared.state.read().index.get(key))
    }

    async fn list(
        &self,
        range: Range<String>,
        revision: Option<Revision>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        self.shared.state.read().index.list(&range, revision, limit)
    }

    async fn count(&self, range: Range<String>) -> Result<u64, StoreError> {
        Ok(self.shared.state.read().index.count(&range))
    }

    async fn txn(
        &self,
        conditions: Vec<Condition>,
        writes: Vec<Write>,
    ) -> Result<TxnOutcome, StoreError> {
        let (reply, outcome) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        queue
            .send(writer::Request {
                conditions,
                writes,
                reply,
            })
            .await
            .map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    async fn watch(
        &self,
        range: Range<String>,
        after: Option<Revision>,
    ) -> Result<WatchStream, StoreError> {
        watch::open(&self.shared, range, after)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.shared.state.read().index.revision())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.state.write().index.compact(revision)
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let (revision, keys) = {
            let state = self.shared.state.read();
            (state.index.revision(), state.index.count_all())
        };
        let state = self.file.metadata().map(|metadata| MemberState {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            bytes: metadata.len(),
            leader: true,
        });
        Ok(StoreStatus {
            engine: "embedded".to_owned(),
            revision,
            keys,
            members: vec![MemberStatus {
                name: self.path.display().to_string(),
                state: state.map_err(|error| error.to_string()),
            }],
        })
    }
}
