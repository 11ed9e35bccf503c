//! The store in an etcd cluster (its v3 API, etcd 3.4 or newer).
//!
//! ```text
//! EtcdStore ──► Connection ──► one HTTP/2 channel ──► the member that answers
//!   read, transaction, watch, compaction (a file each)
//! ```
//!
//! - Revisions are etcd's. An etcd serves one cluster: keys of others would move its revision.
//! - Every request has a time-out and, once it is over, names the endpoints. A read is tried
//!   again until then, a transaction only when etcd cannot have seen it.
//! - Watches go on over restarts of members; see [`watch`].

mod call;
mod compaction;
mod config;
mod connect;
mod lease;
mod read;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod transaction;
mod watch;

use std::{ops::Range, sync::Arc};

use parking_lot::Mutex;

use crate::{
    Condition, KeyValue, ListPage, Revision, Store, StoreError, StoreStatus, TxnOutcome,
    WatchStream, Write,
};
use call::Connection;

pub use call::ConnectionError;
pub use config::{COMPACT_INTERVAL, ConfigError, Endpoint, EtcdConfig, REQUEST_TIMEOUT, TlsFiles};

struct Inner {
    connection: Arc<Connection>,
    leases: Arc<lease::Leases>,
    config: EtcdConfig,
    compactor: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(compactor) = self.compactor.lock().take() {
            compactor.abort();
        }
    }
}

/// The store in etcd. Cheap to clone.
#[derive(Clone)]
pub struct EtcdStore {
    inner: Arc<Inner>,
    connection: Arc<Connection>,
    leases: Arc<lease::Leases>,
}

impl EtcdStore {
    /// Connects, and waits until etcd answers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the certificates cannot be read, or etcd does not answer in time.
    pub async fn connect(config: &EtcdConfig) -> Result<Self, ConnectionError> {
        let connection = Arc::new(Connection::new(config).await?);
        let inner = Arc::new(Inner {
            connection,
            leases: Arc::default(),
            config: config.clone(),
            compactor: Mutex::new(None),
        });
        let store = EtcdStore::of(inner);
        let revision = store.newest_revision().await?;
        tracing::info!(endpoints = %store.connection.endpoints, revision, "etcd answers");
        if let Some(interval) = config.compact_interval {
            *store.inner.compactor.lock() = Some(compaction::start(&store.inner, interval));
        }
        Ok(store)
    }

    fn of(inner: Arc<Inner>) -> Self {
        EtcdStore {
            connection: inner.connection.clone(),
            leases: inner.leases.clone(),
            inner,
        }
    }
}

#[async_trait::async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        self.get_key(key).await
    }

    async fn list(
        &self,
        range: Range<String>,
        revision: Option<Revision>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        self.list_range(range, revision, limit).await
    }

    async fn count(&self, range: Range<String>) -> Result<u64, StoreError> {
        self.count_range(range).await
    }

    async fn txn(
        &self,
        conditions: Vec<Condition>,
        writes: Vec<Write>,
    ) -> Result<TxnOutcome, StoreError> {
        self.transact(conditions, writes).await
    }

    async fn watch(
        &self,
        range: Range<String>,
        after: Option<Revision>,
    ) -> Result<WatchStream, StoreError> {
        let after = match after {
            Some(after) => {
                self.check_revision(after).await?;
                after
            }
            None => self.newest_revision().await?,
        };
        watch::follow(self.connection.clone(), range, after).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.newest_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.compact_before(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.cluster_status().await
    }
}
