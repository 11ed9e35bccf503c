//! Watches.
//!
//! etcd before 3.4.25 and 3.5.8 may answer a request for progress before it has sent the changes
//! up to there, so none is made. Instead every watch looks at all keys and keeps those of its
//! range: each revision then shows, and the last one seen is the progress.
//!
//! A watch outlives its connection: it goes on after its last revision, at whichever member
//! answers, until that revision is compacted.

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Duration};

use etcd_client::{Event, EventType, GetOptions, WatchOptions, WatchResponse};
use futures::stream;

use super::{
    call::{Connection, MAX_MESSAGE_BYTES, Retry},
    read::{key_value, revision, signed},
};
use crate::{PROGRESS_INTERVAL, Revision, StoreError, WatchEvent, WatchStream};

/// Pause before a lost watch is started again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

struct Follower {
    connection: Arc<Connection>,
    range: Range<String>,
    /// Every change up to here is in `ready` or was taken.
    cursor: Revision,
    upstream: Option<etcd_client::WatchStream>,
    ready: VecDeque<WatchEvent>,
    pause: Duration,
    ended: bool,
}

/// Follows `range` after `after`.
pub(super) async fn follow(
    connection: Arc<Connection>,
    range: Range<String>,
    after: Revision,
) -> Result<WatchStream, StoreError> {
    let mut follower = Follower {
        connection,
        range,
        cursor: after,
        upstream: None,
        ready: VecDeque::new(),
        pause: FIRST_PAUSE,
        ended: false,
    };
    follower.start().await?;
    Ok(Box::pin(stream::unfold(
        follower,
        |mut follower| async move {
            if follower.ended {
                return None;
            }
            let item = follower.next().await;
            follower.ended = item.is_err();
            Some((item, follower))
        },
    )))
}

impl Follower {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let Some(upstream) = &mut self.upstream else {
                match self.start().await {
                    Err(error @ (StoreError::Compacted { .. } | StoreError::Future { .. })) => {
                        return Err(error);
                    }
                    Err(error) => self.lose(error).await,
                    Ok(()) => {}
                }
                continue;
            };
            match tokio::time::timeout(PROGRESS_INTERVAL, upstream.message()).await {
                Err(_) => return Ok(WatchEvent::Progress(self.cursor)),
                Ok(Ok(Some(response))) => self.take(&response)?,
                Ok(Ok(None)) => self.lose("etcd ended it").await,
                Ok(Err(error)) => self.lose(error).await,
            }
        }
    }

    /// Starts the watch at some member, unless history there begins later or ends earlier.
    async fn start(&mut self) -> Result<(), StoreError> {
        let cursor = signed(self.cursor);
        let options = WatchOptions::new()
            .with_from_key()
            .with_prev_key()
            .with_start_revision(cursor + 1);
        let started = self
            .connection
            .call(
                "starting a watch",
                Retry::Read,
                Some(self.cursor),
                |client| {
                    let options = options.clone();
                    async move {
                        // A watch that starts with the revision that was compacted to is let in and
                        // lacks the deletions of that revision.
                        let at = GetOptions::new().with_revision(cursor);
                        client.kv_client().get("\0", Some(at)).await?;
                        let mut watch = client
                            .watch_client()
                            .max_decoding_message_size(MAX_MESSAGE_BYTES);
                        watch.watch("\0", Some(options)).await
                    }
                },
            )
            .await?;
        self.upstream = Some(started);
        Ok(())
    }

    async fn lose(&mut self, error: impl std::fmt::Display) {
        tracing::warn!(%error, after = self.cursor, "a watch of etcd was lost, starting it again");
        self.upstream = None;
        self.connection.leave_member().await;
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn compacted(&self, oldest: Revision) -> StoreError {
        StoreError::Compacted {
            asked: self.cursor,
            oldest: oldest.max(self.cursor + 1),
        }
    }

    fn take(&mut self, response: &WatchResponse) -> Result<(), StoreError> {
        if response.compact_revision() > 0 {
            return Err(self.compacted(revision(response.compact_revision())));
        }
        if response.canceled() {
            tracing::warn!(
                reason = response.cancel_reason(),
                "etcd ended a watch, starting it again"
            );
            self.upstream = None;
            return Ok(());
        }
        self.pause = FIRST_PAUSE;
        let mut newest = self.cursor;
        for event in response.events() {
            let Some(pair) = event.kv() else { continue };
            newest = newest.max(revision(pair.mod_revision()));
            let range = self.range.start.as_bytes()..self.range.end.as_bytes();
            if range.contains(&pair.key()) {
                let event = self.change(event, pair)?;
                self.ready.push_back(event);
            }
        }
        // A response never holds a part of a revision's changes.
        self.cursor = newest;
        Ok(())
    }

    fn change(
        &self,
        event: &Event,
        pair: &etcd_client::KeyValue,
    ) -> Result<WatchEvent, StoreError> {
        let previous = event.prev_kv().cloned().map(key_value).transpose()?;
        let at = revision(pair.mod_revision());
        match (event.event_type(), previous) {
            (EventType::Put, None) if pair.version() > 1 => Err(self.compacted(at)),
            (EventType::Put, previous) => Ok(WatchEvent::Put {
                current: key_value(pair.clone())?,
                previous,
            }),
            (EventType::Delete, Some(previous)) => Ok(WatchEvent::Delete {
                previous,
                revision: at,
            }),
            (EventType::Delete, None) => Err(self.compacted(at)),
        }
    }
}
