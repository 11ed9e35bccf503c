//! The writer thread: group commit.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Retention, Shared,
    disk::{Disk, DiskError, Record},
    expiry,
    index::{Change, Index, Version},
};
use crate::{Condition, Revision, StoreError, TxnOutcome, Write, last_of_each_key};

/// Most transactions in one commit.
const BATCH_TRANSACTIONS: usize = 1024;
/// A batch takes no further transaction once its values have this many bytes.
const BATCH_BYTES: usize = 16 << 20;
/// After a failed attempt to reopen the file, transactions fail at once for this long.
const REOPEN_INTERVAL: Duration = Duration::from_millis(250);

/// A queued transaction.
pub(super) struct Request {
    pub conditions: Vec<Condition>,
    pub writes: Vec<Write>,
    pub reply: oneshot::Sender<Result<TxnOutcome, StoreError>>,
}

/// The error of a commit, for each of its transactions.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct BatchError(#[source] Arc<DiskError>);

/// Transactions that are checked and not yet durable.
struct Batch {
    /// In order; several may be of one key.
    changes: Vec<Change>,
    /// The newest state of each changed key.
    newest: HashMap<Arc<str>, Version>,
    replies: Vec<(oneshot::Sender<Result<TxnOutcome, StoreError>>, TxnOutcome)>,
    revision: Revision,
    bytes: usize,
}

/// The thread's state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    disk: Disk,
    retention: Retention,
    /// A batch whose commit failed: whether the file has it is known once it is reopened.
    unsettled: Option<(Vec<Change>, Revision)>,
    last_reopen: Option<(Instant, String)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, disk: Disk, retention: Retention) -> Self {
        Writer {
            shared,
            disk,
            retention,
            unsettled: None,
            last_reopen: None,
        }
    }

    /// Runs until all senders are gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            if self.disk.is_broken()
                && let Err(error) = self.recover()
            {
                let error = BatchError(Arc::new(error));
                let mut failed = Some(first);
                while let Some(request) = failed {
                    let _ = request
                        .reply
                        .send(Err(error.store_error("reopening the file")));
                    failed = requests.try_recv().ok();
                }
                continue;
            }
            let batch = self.gather(first, &mut requests);
            self.commit(batch);
        }
    }

    /// Checks the queued transactions in order against the state and each other.
    fn gather(&self, first: Request, requests: &mut mpsc::Receiver<Request>) -> Batch {
        let state = self.shared.state.read();
        let mut batch = Batch {
            changes: Vec::new(),
            newest: HashMap::new(),
            replies: Vec::new(),
            revision: state.index.revision(),
            bytes: 0,
        };
        let now = Instant::now();
        let mut next = Some(first);
        while let Some(request) = next {
            let outcome = batch.stage(&state.index, request.conditions, request.writes, now);
            batch.replies.push((request.reply, outcome));
            let full = batch.replies.len() >= BATCH_TRANSACTIONS || batch.bytes >= BATCH_BYTES;
            next = if full { None } else { requests.try_recv().ok() };
        }
        batch
    }

    fn commit(&mut self, batch: Batch) {
        let Batch {
            changes,
            newest,
            replies,
            revision,
            ..
        } = batch;
        if !changes.is_empty() {
            let ended: HashSet<_> = changes
                .iter()
                .filter(|change| change.previous.as_ref().is_some_and(|p| p.end.is_some()))
                .map(|change| change.key.clone())
                .collect();
            let records = newest.iter().map(|(key, version)| Record {
                key,
                version,
                had_end: ended.contains(key),
            });
            if let Err(error) = self.disk.commit(records, revision) {
                tracing::error!(%error, revision, "store write failed; the store is read-only until the file can be reopened");
                self.unsettled = Some((changes, revision));
                let error = BatchError(Arc::new(error));
                for (reply, _) in replies {
                    let _ = reply.send(Err(error.store_error("writing a transaction")));
                }
                return;
            }
            self.publish(changes, revision);
        }
        for (reply, outcome) in replies {
            let _ = reply.send(Ok(outcome));
        }
    }

    /// Shows durable changes to readers and watchers.
    fn publish(&self, changes: Vec<Change>, revision: Revision) {
        let ends = changes.iter().any(|change| change.version.end.is_some());
        let mut state = self.shared.state.write();
        state.watchers.advance(&changes, revision);
        state.index.apply(changes, revision);
        state.index.trim(Instant::now(), &self.retention);
        drop(state);
        if ends {
            self.shared.alarm.ring();
        }
    }

    /// Reopens the file after a failure and settles the batch that failed.
    fn recover(&mut self) -> Result<(), DiskError> {
        if let Some((at, error)) = &self.last_reopen
            && at.elapsed() < REOPEN_INTERVAL
        {
            return Err(DiskError::StillBroken(error.clone()));
        }
        let reopened = self.reopen();
        self.last_reopen = reopened
            .as_ref()
            .err()
            .map(|error| (Instant::now(), error.to_string()));
        reopened
    }

    fn reopen(&mut self) -> Result<(), DiskError> {
        let found = self.disk.reopen()?;
        let expected = self.shared.state.read().index.revision();
        match self.unsettled.take() {
            Some((changes, revision)) if revision == found && found != expected => {
                self.publish(changes, revision);
            }
            _ if found == expected => {}
            unsettled => {
                self.unsettled = unsettled;
                self.disk.close();
                return Err(DiskError::Foreign { found, expected });
            }
        }
        tracing::info!(revision = found, "store file reopened; writes work again");
        Ok(())
    }
}

impl Batch {
    fn newest<'a>(&'a self, index: &'a Index, key: &str) -> Option<&'a Version> {
        match self.newest.get(key) {
            Some(version) => Some(version).filter(|version| version.value.is_some()),
            None => index.newest(key),
        }
    }

    fn stage(
        &mut self,
        index: &Index,
        conditions: Vec<Condition>,
        writes: Vec<Write>,
        at: Instant,
    ) -> TxnOutcome {
        for condition in conditions {
            let (key, wanted) = match condition {
                Condition::Absent(key) => (key, None),
                Condition::ModRevision(key, revision) => (key, Some(revision)),
            };
            let current = self.newest(index, &key);
            if current.map(|version| version.mod_revision) != wanted {
                let current = current.and_then(|version| version.key_value(&key));
                return TxnOutcome::Conflict { key, current };
            }
        }
        let revision = self.revision + 1;
        let mut changed = false;
        for write in last_of_each_key(writes) {
            let (key, value, end) = match write {
                Write::Put(key, value) => (key, Some(value), None),
                Write::PutExpiring(key, value, ttl) => {
                    (key, Some(value), Some(expiry::end_after(ttl)))
                }
                Write::Delete(key) => (key, None, None),
            };
            let previous = self.newest(index, &key).cloned();
            if value.is_none() && previous.is_none() {
                continue;
            }
            changed = true;
            self.bytes += key.len() + value.as_ref().map_or(0, bytes::Bytes::len);
            let create_revision = match (&previous, &value) {
                (Some(previous), Some(_)) => previous.create_revision,
                _ => revision,
            };
            let version = Version {
                create_revision,
                mod_revision: revision,
                value,
                end,
            };
            let key: Arc<str> = key.into();
            self.newest.insert(key.clone(), version.clone());
            self.changes.push(Change {
                key,
                version,
                previous,
                at,
            });
        }
        if changed {
            self.revision = revision;
        }
        TxnOutcome::Committed(self.revision)
    }
}

impl BatchError {
    fn store_error(&self, doing: &'static str) -> StoreError {
        StoreError::Io {
            doing,
            source: Box::new(self.clone()),
        }
    }
}
