//! Old history is dropped: on request, and by itself every few minutes.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use etcd_client::CompactionOptions;

use super::{EtcdStore, Inner, call::Retry, read::signed};
use crate::{Revision, StoreError};

impl EtcdStore {
    pub(super) async fn compact_before(&self, revision: Revision) -> Result<(), StoreError> {
        let compacted = self
            .connection
            .call(
                "compacting",
                Retry::Read,
                Some(revision),
                |client| async move {
                    let options = Some(CompactionOptions::new());
                    client.kv_client().compact(signed(revision), options).await
                },
            )
            .await;
        match compacted {
            // Somebody else compacted further.
            Ok(_) | Err(StoreError::Compacted { .. }) => Ok(()),
            Err(StoreError::Future { asked, .. }) => Err(StoreError::Future {
                asked,
                current: self.newest_revision().await?,
            }),
            Err(error) => Err(error),
        }
    }
}

/// Compacts, every `interval`, to what was the newest revision one interval ago. Servers that
/// share an etcd need not agree: none drops what it has not seen for that long.
pub(super) async fn run(store: Weak<Inner>, interval: Duration) {
    let mut seen: Option<Revision> = None;
    loop {
        tokio::time::sleep(interval).await;
        let Some(store) = store.upgrade().map(EtcdStore::of) else {
            return;
        };
        match tick(&store, seen).await {
            Ok(newest) => seen = Some(newest),
            Err(error) => tracing::warn!(%error, "cannot compact etcd"),
        }
    }
}

async fn tick(store: &EtcdStore, seen: Option<Revision>) -> Result<Revision, StoreError> {
    let newest = store.newest_revision().await?;
    if let Some(seen) = seen {
        store.compact_before(seen).await?;
        tracing::debug!(revision = seen, "etcd compacted");
    }
    Ok(newest)
}

/// Starts [`run`]; it ends with the store.
pub(super) fn start(inner: &Arc<Inner>, interval: Duration) -> tokio::task::JoinHandle<()> {
    tokio::spawn(run(Arc::downgrade(inner), interval))
}
