//! Watches: cursors into the shared history.
//!
//! The writer marks the watchers whose range a commit touches and wakes them; the cursors of the
//! others it moves forward itself, so that an idle watcher neither scans nor falls behind.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::stream;
use tokio::sync::Notify;

use super::{Shared, index::Change};
use crate::{PROGRESS_INTERVAL, Revision, StoreError, WatchEvent, WatchStream};

/// Changes looked at while holding the lock once.
const SCAN_CHUNK: usize = 1024;

/// All open watches.
#[derive(Default)]
pub(super) struct Watchers {
    next_id: u64,
    open: HashMap<u64, Arc<Watcher>>,
}

/// What the writer knows of one watch. The fields change only under the store's state lock:
/// write-locked by the writer, read-locked by the watch's own stream.
struct Watcher {
    range: Range<String>,
    /// Everything up to this revision has been taken.
    cursor: AtomicU64,
    /// There is something in the range after the cursor.
    pending: AtomicBool,
    wake: Notify,
}

impl Watchers {
    /// After `changes` were applied up to `revision`.
    pub(super) fn advance(&self, changes: &[Change], revision: Revision) {
        for watcher in self.open.values() {
            let range = &watcher.range;
            let touched = changes
                .iter()
                .any(|change| *range.start <= *change.key && *change.key < *range.end);
            if touched {
                watcher.pending.store(true, Ordering::Release);
                watcher.wake.notify_one();
            } else if !watcher.pending.load(Ordering::Acquire) {
                watcher.cursor.store(revision, Ordering::Release);
            }
        }
    }

    pub(super) fn wake_all(&self) {
        for watcher in self.open.values() {
            watcher.wake.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

/// The reading end.
struct Reader {
    shared: Arc<Shared>,
    id: u64,
    watcher: Arc<Watcher>,
    buffer: VecDeque<WatchEvent>,
    ended: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.state.write().watchers.open.remove(&self.id);
    }
}

/// Starts a watch of `range` after `after`.
pub(super) fn open(
    shared: &Arc<Shared>,
    range: Range<String>,
    after: Option<Revision>,
) -> Result<WatchStream, StoreError> {
    let mut state = shared.state.write();
    let after = after.unwrap_or(state.index.revision());
    state.index.check(after)?;
    let watcher = Arc::new(Watcher {
        range,
        cursor: AtomicU64::new(after),
        pending: AtomicBool::new(after < state.index.revision()),
        wake: Notify::new(),
    });
    let id = state.watchers.next_id;
    state.watchers.next_id += 1;
    state.watchers.open.insert(id, watcher.clone());
    drop(state);
    let reader = Reader {
        shared: shared.clone(),
        id,
        watcher,
        buffer: VecDeque::new(),
        ended: false,
    };
    Ok(Box::pin(stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        reader.ended = item.is_err();
        Some((item, reader))
    })))
}

impl Reader {
    async fn next(&mut self) -> Option<Result<WatchEvent, StoreError>> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Some(Ok(event));
            }
            match self.take() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
            if self.shared.closed.load(Ordering::Acquire) {
                return Some(Err(StoreError::Closed));
            }
            let woken = tokio::time::timeout(PROGRESS_INTERVAL, self.watcher.wake.notified()).await;
            if woken.is_err()
                && let Some(progress) = self.progress()
            {
                return Some(Ok(progress));
            }
        }
    }

    /// Fills the buffer from the history; false when there was nothing to look at.
    fn take(&mut self) -> Result<bool, StoreError> {
        let state = self.shared.state.read();
        if !self.watcher.pending.load(Ordering::Acquire) {
            return Ok(false);
        }
        let after = self.watcher.cursor.load(Ordering::Acquire);
        let replay = state.index.replay(&self.watcher.range, after, SCAN_CHUNK)?;
        self.watcher.cursor.store(replay.through, Ordering::Release);
        if replay.complete {
            self.watcher.pending.store(false, Ordering::Release);
        }
        self.buffer.extend(replay.events);
        Ok(true)
    }

    fn progress(&self) -> Option<WatchEvent> {
        let _state = self.shared.state.read();
        (!self.watcher.pending.load(Ordering::Acquire))
            .then(|| WatchEvent::Progress(self.watcher.cursor.load(Ordering::Acquire)))
    }
}
