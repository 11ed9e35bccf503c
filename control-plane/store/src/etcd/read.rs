//! Gets and lists. A list is taken in pieces at one revision, so that no answer is huge.

use std::ops::Range;

use bytes::Bytes;
use etcd_client::GetOptions;

use super::{
    EtcdStore,
    call::{MAX_MESSAGE_BYTES, Retry},
};
use crate::{KeyValue, ListPage, Revision, StoreError};

/// Keys in the first piece of a list.
const FIRST_PIECE_KEYS: usize = 500;
/// Later pieces have about so many bytes.
const PIECE_BYTES: usize = 8 << 20;
/// And at most so many keys.
const MAX_PIECE_KEYS: usize = 10_000;

/// A pair as etcd gives it.
pub(super) fn key_value(pair: etcd_client::KeyValue) -> Result<KeyValue, StoreError> {
    let (create_revision, mod_revision) = (pair.create_revision(), pair.mod_revision());
    let (key, value) = pair.into_key_value();
    Ok(KeyValue {
        key: String::from_utf8(key).map_err(|source| StoreError::Io {
            doing: "reading a key that is no text",
            source: Box::new(source),
        })?,
        value: Bytes::from(value),
        create_revision: revision(create_revision),
        mod_revision: revision(mod_revision),
    })
}

/// etcd's revisions are never negative.
pub(super) fn revision(revision: i64) -> Revision {
    u64::try_from(revision).unwrap_or(0)
}

pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// etcd has no empty key: the first possible one stands for it.
pub(super) fn start_key(start: &str) -> &str {
    match start {
        "" => "\0",
        start => start,
    }
}

/// A range without keys, for questions about revisions.
fn no_keys() -> Range<String> {
    String::from("\0")..String::from("\0\0")
}

struct Piece {
    items: Vec<KeyValue>,
    revision: Revision,
    /// Keys in the piece's range, whether in the piece or not.
    count: u64,
}

impl EtcdStore {
    pub(super) async fn get_key(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        let mut answer = self
            .connection
            .call("reading a key", Retry::Read, None, |client| async move {
                let mut kv = client
                    .kv_client()
                    .max_decoding_message_size(MAX_MESSAGE_BYTES);
                kv.get(start_key(key), None).await
            })
            .await?;
        answer.take_kvs().pop().map(key_value).transpose()
    }

    pub(super) async fn newest_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.count_only(no_keys(), None).await?.revision)
    }

    /// Whether the state at a revision is still, and already, known.
    pub(super) async fn check_revision(&self, revision: Revision) -> Result<(), StoreError> {
        self.count_only(no_keys(), Some(revision)).await.map(drop)
    }

    async fn count_only(
        &self,
        range: Range<String>,
        at: Option<Revision>,
    ) -> Result<Piece, StoreError> {
        self.piece(&range, at, 0, true).await
    }

    pub(super) async fn count_range(&self, range: Range<String>) -> Result<u64, StoreError> {
        if start_key(&range.start) >= range.end.as_str() {
            return Ok(0);
        }
        Ok(self.count_only(range, None).await?.count)
    }

    pub(super) async fn list_range(
        &self,
        range: Range<String>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        if start_key(&range.start) >= range.end.as_str() {
            let revision = self.count_only(no_keys(), at).await?.revision;
            return Ok(ListPage {
                items: Vec::new(),
                revision: at.unwrap_or(revision),
                remaining: 0,
            });
        }
        let wanted = if limit == 0 { usize::MAX } else { limit };
        let first = self
            .piece(&range, at, wanted.min(FIRST_PIECE_KEYS), false)
            .await?;
        let at = at.unwrap_or(first.revision);
        let mut items = first.items;
        let mut remaining = first.count.saturating_sub(items.len() as u64);
        while remaining > 0 && items.len() < wanted {
            let Some(last) = items.last() else { break };
            let rest = format!("{}\0", last.key)..range.end.clone();
            let keys = piece_keys(&items).min(wanted - items.len());
            let next = self.piece(&rest, Some(at), keys, false).await?;
            remaining = next.count.saturating_sub(next.items.len() as u64);
            if next.items.is_empty() {
                break;
            }
            items.extend(next.items);
        }
        Ok(ListPage {
            items,
            revision: at,
            remaining,
        })
    }

    async fn piece(
        &self,
        range: &Range<String>,
        at: Option<Revision>,
        keys: usize,
        count_only: bool,
    ) -> Result<Piece, StoreError> {
        let mut options = GetOptions::new()
            .with_range(range.end.as_str())
            .with_revision(signed(at.unwrap_or(0)))
            .with_limit(i64::try_from(keys).unwrap_or(i64::MAX));
        if count_only {
            options = options.with_count_only();
        }
        let request = |client: etcd_client::Client| {
            let (start, options) = (start_key(&range.start).to_owned(), options.clone());
            async move {
                let mut kv = client
                    .kv_client()
                    .max_decoding_message_size(MAX_MESSAGE_BYTES);
                kv.get(start, Some(options)).await
            }
        };
        // etcd takes 0 for "now".
        let answer = if at == Some(0) {
            let current = Box::pin(self.newest_revision()).await?;
            Err(StoreError::Compacted {
                asked: 0,
                oldest: current,
            })
        } else {
            self.connection
                .call("listing keys", Retry::Read, at, request)
                .await
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(StoreError::Future { asked, .. }) => {
                let current = Box::pin(self.newest_revision()).await?;
                return Err(StoreError::Future { asked, current });
            }
            Err(error) => return Err(error),
        };
        Ok(Piece {
            revision: revision(answer.header().map_or(0, |header| header.revision())),
            count: u64::try_from(answer.count()).unwrap_or(0),
            items: answer
                .take_kvs()
                .into_iter()
                .map(key_value)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// How many keys make a piece, going by those that are here.
fn piece_keys(items: &[KeyValue]) -> usize {
    let bytes: usize = items.iter().map(|item| item.value.len()).sum();
    let average = (bytes / items.len().max(1)).max(1);
    (PIECE_BYTES / average).clamp(1, MAX_PIECE_KEYS)
}
