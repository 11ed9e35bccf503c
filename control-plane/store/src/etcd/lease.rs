//! Leases: what lets keys end by themselves. One lease serves all keys of one time to live that
//! are written within a short while, as a lease per key would weigh more than the key.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    call::{Connection, Retry},
    read::signed,
};
use crate::StoreError;

/// A lease is given to keys for at most so long, and for at most a twentieth of its time.
const LONGEST_SHARED: Duration = Duration::from_secs(60);
/// Added to a lease's time: it was granted before the key is written.
const HEAD_START: Duration = Duration::from_secs(2);
/// Times to live that are remembered.
const MOST_REMEMBERED: usize = 64;

#[derive(Default)]
pub(super) struct Leases {
    granted: tokio::sync::Mutex<HashMap<Duration, (i64, Instant)>>,
}

impl Leases {
    /// A lease for a key that is written now.
    pub(super) async fn lease(
        &self,
        connection: &Connection,
        ttl: Duration,
    ) -> Result<i64, StoreError> {
        let shared = (ttl / 20).min(LONGEST_SHARED);
        let mut granted = self.granted.lock().await;
        if let Some((lease, at)) = granted.get(&ttl)
            && at.elapsed() < shared
        {
            return Ok(*lease);
        }
        let at = Instant::now();
        let seconds = signed((ttl + shared + HEAD_START).as_secs() + 1);
        let lease = connection
            .call("granting a lease", Retry::Read, None, |client| async move {
                client.lease_client().grant(seconds, None).await
            })
            .await?
            .id();
        if granted.len() >= MOST_REMEMBERED {
            granted.clear();
        }
        granted.insert(ttl, (lease, at));
        Ok(lease)
    }

    /// After etcd does not know one.
    pub(super) async fn forget(&self) {
        self.granted.lock().await.clear();
    }
}
