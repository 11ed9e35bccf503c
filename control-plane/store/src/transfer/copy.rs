//! From store to store, and the comparison of two.

use std::ops::Range;

use bytes::Bytes;

use super::{Progress, Step, TransferError, Transferred};
use crate::{Condition, KeyValue, Revision, Store, StoreError, TxnOutcome, Write};

/// Keys read at once.
const PAGE_KEYS: usize = 1_000;
/// Keys written by one transaction; etcd takes 128 operations.
const BATCH_KEYS: usize = 100;
/// Bytes written by one transaction, unless one value alone has more; etcd takes 1.5 MiB.
const BATCH_BYTES: usize = 512 << 10;

/// Every key.
pub(super) fn everything() -> Range<String> {
    String::new()..String::from("\u{10FFFF}")
}

/// Goes through all keys at one revision.
pub(super) struct Pages<'a> {
    store: &'a dyn Store,
    rest: Option<Range<String>>,
    pub revision: Option<Revision>,
    /// Keys that have not been given yet.
    pub remaining: u64,
}

impl<'a> Pages<'a> {
    pub(super) fn new(store: &'a dyn Store) -> Self {
        Pages {
            store,
            rest: Some(everything()),
            revision: None,
            remaining: 0,
        }
    }

    /// The next keys; none: that was all.
    pub(super) async fn next(&mut self) -> Result<Vec<KeyValue>, StoreError> {
        let Some(range) = self.rest.take() else {
            return Ok(Vec::new());
        };
        let end = range.end.clone();
        let page = self.store.list(range, self.revision, PAGE_KEYS).await?;
        self.revision = Some(page.revision);
        self.remaining = page.remaining;
        if page.remaining > 0
            && let Some(last) = page.items.last()
        {
            self.rest = Some(format!("{}\0", last.key)..end);
        }
        Ok(page.items)
    }
}

/// Writes keys that the target must not have yet.
pub(super) struct Importer<'a> {
    target: &'a dyn Store,
    batch: Vec<(String, Bytes)>,
    batch_bytes: usize,
    pub keys: u64,
    pub bytes: u64,
}

impl<'a> Importer<'a> {
    /// Refuses a target that has keys.
    pub(super) async fn new(target: &'a dyn Store) -> Result<Self, TransferError> {
        let found = target.count(everything()).await;
        match found.map_err(TransferError::Target)? {
            0 => Ok(Importer {
                target,
                batch: Vec::new(),
                batch_bytes: 0,
                keys: 0,
                bytes: 0,
            }),
            keys => Err(TransferError::NotEmpty(keys)),
        }
    }

    pub(super) async fn put(&mut self, key: String, value: Bytes) -> Result<(), TransferError> {
        let size = key.len() + value.len();
        if self.batch.len() >= BATCH_KEYS
            || (!self.batch.is_empty() && self.batch_bytes + size > BATCH_BYTES)
        {
            self.flush().await?;
        }
        self.batch_bytes += size;
        self.bytes += size as u64;
        self.batch.push((key, value));
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), TransferError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let count = batch.len() as u64;
        let conditions = batch
            .iter()
            .map(|(key, _)| Condition::Absent(key.clone()))
            .collect();
        let writes = batch
            .into_iter()
            .map(|(key, value)| Write::Put(key, value))
            .collect();
        let written = self.target.txn(conditions, writes).await;
        match written.map_err(TransferError::Target)? {
            TxnOutcome::Committed(_) => {
                self.keys += count;
                Ok(())
            }
            TxnOutcome::Conflict { key, .. } => Err(TransferError::TargetChanged(key)),
        }
    }
}

/// Copies every key into an empty store, then compares every key.
///
/// # Errors
/// When a store fails, the target has keys, or somebody writes to one of them meanwhile. Keys
/// that were copied stay: [`clear`] removes them.
pub async fn copy(
    source: &dyn Store,
    target: &dyn Store,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Transferred, TransferError> {
    let mut importer = Importer::new(target).await?;
    let mut pages = Pages::new(source);
    loop {
        let page = pages.next().await.map_err(TransferError::Source)?;
        if page.is_empty() {
            break;
        }
        for pair in page {
            importer.put(pair.key, pair.value).await?;
        }
        importer.flush().await?;
        progress(Progress {
            step: Step::Copy,
            done: importer.keys,
            total: importer.keys + pages.remaining,
        });
    }
    let transferred = Transferred {
        keys: importer.keys,
        bytes: importer.bytes,
        revision: pages.revision.unwrap_or(0),
    };
    verify(source, target, progress).await?;
    let after = source.revision().await.map_err(TransferError::Source)?;
    if after != transferred.revision {
        return Err(TransferError::SourceChanged {
            before: transferred.revision,
            after,
        });
    }
    Ok(transferred)
}

/// Compares every key of two stores; gives their number.
///
/// # Errors
/// The first difference, or the failure of a store.
pub async fn verify(
    source: &dyn Store,
    target: &dyn Store,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<u64, TransferError> {
    let (mut left, mut right) = (Pages::new(source), Pages::new(target));
    let mut done = 0;
    loop {
        let expected = left.next().await.map_err(TransferError::Source)?;
        let found = right.next().await.map_err(TransferError::Target)?;
        // Pages have the same size: as long as the keys are the same, so are the pages.
        for (index, pair) in expected.iter().enumerate() {
            let difference = match found.get(index) {
                Some(other) if other.key == pair.key && other.value == pair.value => continue,
                Some(other) if other.key == pair.key => "the value is another one",
                Some(other) if other.key < pair.key => "the target has a key before it",
                _ => "the target does not have it",
            };
            return Err(TransferError::Differs {
                key: pair.key.clone(),
                difference,
            });
        }
        if let Some(extra) = found.get(expected.len()) {
            return Err(TransferError::Differs {
                key: extra.key.clone(),
                difference: "the source does not have it",
            });
        }
        if expected.is_empty() {
            return Ok(done);
        }
        done += expected.len() as u64;
        progress(Progress {
            step: Step::Verify,
            done,
            total: done + left.remaining,
        });
    }
}

/// Deletes every key; gives their number.
///
/// # Errors
/// When the store fails.
pub async fn clear(
    target: &dyn Store,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<u64, TransferError> {
    let mut done = 0;
    loop {
        let page = target.list(everything(), None, BATCH_KEYS).await;
        let page = page.map_err(TransferError::Target)?;
        if page.items.is_empty() {
            return Ok(done);
        }
        let deletions: Vec<_> = page
            .items
            .into_iter()
            .map(|pair| Write::Delete(pair.key))
            .collect();
        done += deletions.len() as u64;
        let deleted = target.txn(Vec::new(), deletions).await;
        deleted.map_err(TransferError::Target)?;
        progress(Progress {
            step: Step::Clear,
            done,
            total: done + page.remaining,
        });
    }
}
