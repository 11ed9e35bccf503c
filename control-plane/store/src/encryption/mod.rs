//! Values encrypted at rest: a layer above any store.
//!
//! ```text
//! API server ──► EncryptedStore ──► embedded or etcd
//!                  │ the first rule whose prefix the key has:
//!                  └ writes with its first sealer, reads what any of its sealers wrote
//! ```
//! The form is Kubernetes' (`k8s:enc:aesgcm:v1:NAME:` and `k8s:enc:secretbox:v1:NAME:`), so data
//! moves either way. With AES-GCM a value is bound to its key: moved to another, it is refused.
//! Keys and what is not named by a rule stay plain.

mod config;
mod seal;
#[cfg(test)]
mod tests;

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;

use crate::{
    Condition, KeyValue, ListPage, Revision, Store, StoreError, StoreStatus, TxnOutcome,
    WatchEvent, WatchStream, Write, prefix_range,
};
use seal::Sealer;

pub use config::{EncryptionError, Rules};

/// Keys taken at once by [`EncryptedStore::reencrypt`].
const PAGE_KEYS: usize = 500;

/// A store whose values are encrypted by rules.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    rules: Arc<RwLock<Arc<Rules>>>,
}

/// What [`EncryptedStore::reencrypt`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reencrypted {
    /// Keys that a rule names.
    pub keys: u64,
    /// Those that were written anew.
    pub rewritten: u64,
}

impl Rules {
    /// How the values of a key are written and read.
    fn sealers(&self, key: &str) -> &[Sealer] {
        let rule = self.rules.iter().find(|rule| key.starts_with(&rule.prefix));
        rule.map_or(&[], |rule| &rule.sealers)
    }

    fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, StoreError> {
        match self.sealers(key).first() {
            Some(sealer) => sealer
                .seal(key, value)
                .map_err(|reason| sealed(key, reason)),
            None => Ok(value),
        }
    }

    fn open(&self, mut pair: KeyValue) -> Result<KeyValue, StoreError> {
        if let Some(opened) = self.opened(&pair.key, &pair.value)? {
            pair.value = opened;
        }
        Ok(pair)
    }

    /// `None`: it is plain, and may be.
    fn opened(&self, key: &str, value: &Bytes) -> Result<Option<Bytes>, StoreError> {
        let sealers = self.sealers(key);
        if let Some(sealer) = sealers.iter().find(|sealer| sealer.wrote(value)) {
            let opened = sealer
                .open(key, value)
                .map_err(|reason| sealed(key, reason))?;
            return Ok(Some(opened));
        }
        if value.starts_with(seal::MARK) {
            return Err(sealed(key, "no key of the configuration wrote it"));
        }
        if !sealers.is_empty() && !sealers.iter().any(Sealer::is_identity) {
            return Err(sealed(
                key,
                "it is plain, and the configuration has no identity",
            ));
        }
        Ok(None)
    }

    fn open_event(&self, event: WatchEvent) -> Result<WatchEvent, StoreError> {
        Ok(match event {
            WatchEvent::Put { current, previous } => WatchEvent::Put {
                current: self.open(current)?,
                previous: previous.map(|pair| self.open(pair)).transpose()?,
            },
            WatchEvent::Delete { previous, revision } => WatchEvent::Delete {
                previous: self.open(previous)?,
                revision,
            },
            progress @ WatchEvent::Progress(_) => progress,
        })
    }
}

fn sealed(key: &str, reason: &'static str) -> StoreError {
    StoreError::Sealed {
        key: key.to_owned(),
        reason,
    }
}

impl EncryptedStore {
    /// A layer above `inner`.
    pub fn new(inner: Arc<dyn Store>, rules: Rules) -> Self {
        EncryptedStore {
            inner,
            rules: Arc::new(RwLock::new(Arc::new(rules))),
        }
    }

    /// Other rules, from now on.
    pub fn replace_rules(&self, rules: Rules) {
        *self.rules.write() = Arc::new(rules);
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().clone()
    }

    /// Writes every value anew that its rule's first sealer did not write. Values that others
    /// write meanwhile are left: they are written by the rules too.
    ///
    /// # Errors
    /// When the store fails or a value cannot be read; what was done stays.
    pub async fn reencrypt(
        &self,
        progress: &mut (dyn FnMut(Reencrypted) + Send),
    ) -> Result<Reencrypted, StoreError> {
        let rules = self.rules();
        let mut done = Reencrypted::default();
        for (position, rule) in rules.rules.iter().enumerate() {
            let mut range = prefix_range(&rule.prefix);
            loop {
                let page = self.inner.list(range.clone(), None, PAGE_KEYS).await?;
                let last = page.items.last().map(|pair| pair.key.clone());
                for pair in page.items {
                    if rules.position(&pair.key) == Some(position) {
                        done.keys += 1;
                        done.rewritten += u64::from(self.rewrite(&rules, pair).await?);
                    }
                }
                progress(done);
                match last {
                    Some(last) if page.remaining > 0 => range.start = format!("{last}\0"),
                    _ => break,
                }
            }
        }
        Ok(done)
    }

    async fn rewrite(&self, rules: &Rules, pair: KeyValue) -> Result<bool, StoreError> {
        let sealers = rules.sealers(&pair.key);
        if sealers.first().is_none_or(|first| first.wrote(&pair.value)) {
            return Ok(false);
        }
        let condition = Condition::ModRevision(pair.key.clone(), pair.mod_revision);
        let plain = rules.open(pair)?;
        let value = rules.seal(&plain.key, plain.value)?;
        let written = self
            .inner
            .txn(vec![condition], vec![Write::Put(plain.key, value)])
            .await?;
        Ok(matches!(written, TxnOutcome::Committed(_)))
    }
}

#[async_trait::async_trait]
impl Store for EncryptedStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        let found = self.inner.get(key).await?;
        found.map(|pair| self.rules().open(pair)).transpose()
    }

    async fn list(
        &self,
        range: Range<String>,
        revision: Option<Revision>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let mut page = self.inner.list(range, revision, limit).await?;
        let rules = self.rules();
        for pair in &mut page.items {
            if let Some(opened) = rules.opened(&pair.key, &pair.value)? {
                pair.value = opened;
            }
        }
        Ok(page)
    }

    async fn count(&self, range: Range<String>) -> Result<u64, StoreError> {
        self.inner.count(range).await
    }

    async fn txn(
        &self,
        conditions: Vec<Condition>,
        writes: Vec<Write>,
    ) -> Result<TxnOutcome, StoreError> {
        let rules = self.rules();
        let writes = writes
            .into_iter()
            .map(|write| {
                Ok(match write {
                    Write::Put(key, value) => {
                        let value = rules.seal(&key, value)?;
                        Write::Put(key, value)
                    }
                    Write::PutExpiring(key, value, ttl) => {
                        let value = rules.seal(&key, value)?;
                        Write::PutExpiring(key, value, ttl)
                    }
                    delete @ Write::Delete(_) => delete,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(match self.inner.txn(conditions, writes).await? {
            TxnOutcome::Conflict { key, current } => TxnOutcome::Conflict {
                key,
                current: current.map(|pair| rules.open(pair)).transpose()?,
            },
            committed @ TxnOutcome::Committed(_) => committed,
        })
    }

    async fn watch(
        &self,
        range: Range<String>,
        after: Option<Revision>,
    ) -> Result<WatchStream, StoreError> {
        let rules = self.rules.clone();
        let changes = self.inner.watch(range, after).await?;
        Ok(Box::pin(changes.map(move |event| {
            let rules = rules.read().clone();
            rules.open_event(event?)
        })))
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.inner.status().await
    }
}
