//! A model of a store: what any sequence of operations must give. Random sequences run against
//! it and against an implementation, side by side.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;

use crate::{
    Condition, KeyValue, Revision, Store, StoreError, TxnOutcome, WatchEvent, Write,
    last_of_each_key,
};

/// Keys of the model: few, so that operations meet.
pub const KEYS: u8 = 6;

/// Something that a test does. Keys are numbers below [`KEYS`]; revisions are counted back from
/// the newest.
#[derive(Debug, Clone)]
pub enum Operation {
    /// A transaction: conditions, then writes (`None` deletes).
    Txn(Vec<(u8, Expect)>, Vec<(u8, Option<u8>)>),
    /// A list of keys `from..to`, so many revisions ago, at most `limit`.
    List {
        /// First key.
        from: u8,
        /// Key after the last one.
        to: u8,
        /// How long ago.
        ago: u64,
        /// 0: all.
        limit: usize,
    },
    /// A watch of keys `from..to` after so many revisions ago, up to now.
    Watch {
        /// First key.
        from: u8,
        /// Key after the last one.
        to: u8,
        /// How long ago.
        ago: u64,
    },
    /// Forget what is older than so many revisions ago.
    Compact(u64),
    /// The store's process dies and comes back.
    Crash,
}

/// What a condition asks of a key.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// Not there.
    Absent,
    /// As the model has it.
    Current,
    /// At a revision that the model does not have it at.
    Stale,
}

/// The state of all keys at each revision since `oldest`.
pub struct Model {
    states: BTreeMap<Revision, BTreeMap<String, KeyValue>>,
    oldest: Revision,
}

/// The name of a key; the one after the last is the end of all.
fn name(key: u8) -> String {
    format!("/model/{key}")
}

impl Model {
    /// Of a store without keys, whose newest revision is this.
    pub fn new(revision: Revision) -> Self {
        Model {
            states: BTreeMap::from([(revision, BTreeMap::new())]),
            oldest: revision,
        }
    }

    fn newest(&self) -> Revision {
        self.states.keys().next_back().copied().unwrap_or(0)
    }

    fn state(&self, at: Revision) -> &BTreeMap<String, KeyValue> {
        &self.states[&at]
    }

    /// After a crash of a store that keeps no history on disk.
    pub fn forget_history(&mut self) {
        self.compact(self.newest());
    }

    fn compact(&mut self, at: Revision) {
        self.oldest = self.oldest.max(at);
        self.states = self.states.split_off(&self.oldest);
    }

    fn conditions(&self, expected: &[(u8, Expect)]) -> Vec<Condition> {
        let now = self.state(self.newest());
        expected
            .iter()
            .map(|(key, expect)| {
                let key = name(*key);
                let current = now.get(&key).map(|pair| pair.mod_revision);
                match (expect, current) {
                    (Expect::Absent, _) => Condition::Absent(key),
                    (Expect::Current, Some(revision)) => Condition::ModRevision(key, revision),
                    (Expect::Current, None) => Condition::Absent(key),
                    (Expect::Stale, current) => {
                        Condition::ModRevision(key, current.map_or(1, |revision| revision - 1))
                    }
                }
            })
            .collect()
    }

    fn apply(&mut self, conditions: &[Condition], writes: Vec<Write>) -> TxnOutcome {
        let newest = self.newest();
        let mut state = self.state(newest).clone();
        for condition in conditions {
            let current = state.get(condition.key());
            if !condition.holds(current) {
                return TxnOutcome::Conflict {
                    key: condition.key().to_owned(),
                    current: current.cloned(),
                };
            }
        }
        let revision = newest + 1;
        let mut changed = false;
        for write in last_of_each_key(writes) {
            let previous = state.remove(write.key());
            changed |= previous.is_some();
            if let Write::Put(key, value) = write {
                changed = true;
                let created = previous.map_or(revision, |previous| previous.create_revision);
                state.insert(
                    key.clone(),
                    KeyValue {
                        key,
                        value,
                        create_revision: created,
                        mod_revision: revision,
                    },
                );
            }
        }
        if !changed {
            return TxnOutcome::Committed(newest);
        }
        self.states.insert(revision, state);
        TxnOutcome::Committed(revision)
    }

    /// The changes of a range after a revision.
    fn changes(&self, range: &Range<String>, after: Revision) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        let mut before = self.state(after);
        for (revision, state) in self.states.range(after + 1..) {
            let keys: std::collections::BTreeSet<_> = before.keys().chain(state.keys()).collect();
            for key in keys.into_iter().filter(|key| range.contains(*key)) {
                match (before.get(key), state.get(key)) {
                    (previous, Some(current)) if previous != Some(current) => {
                        events.push(WatchEvent::Put {
                            current: current.clone(),
                            previous: previous.cloned(),
                        });
                    }
                    (Some(previous), None) => events.push(WatchEvent::Delete {
                        previous: previous.clone(),
                        revision: *revision,
                    }),
                    _ => {}
                }
            }
            before = state;
        }
        events
    }

    fn ago(&self, revisions: u64) -> Revision {
        self.newest().saturating_sub(revisions)
    }

    /// Does the operation on both and compares. A [`Operation::Crash`] is the caller's.
    pub async fn check(&mut self, store: &Arc<dyn Store>, operation: Operation) {
        match operation {
            Operation::Txn(expected, writes) => self.check_txn(store, &expected, writes).await,
            Operation::List {
                from,
                to,
                ago,
                limit,
            } => {
                self.check_list(store, name(from)..name(to), ago, limit)
                    .await
            }
            Operation::Watch { from, to, ago } => {
                self.check_watch(store, name(from)..name(to), ago).await;
            }
            Operation::Compact(ago) => {
                let at = self.ago(ago);
                store.compact(at).await.unwrap();
                self.compact(at);
            }
            Operation::Crash => {}
        }
        assert_eq!(store.revision().await.unwrap(), self.newest());
    }

    async fn check_txn(
        &mut self,
        store: &Arc<dyn Store>,
        expected: &[(u8, Expect)],
        writes: Vec<(u8, Option<u8>)>,
    ) {
        let conditions = self.conditions(expected);
        let writes: Vec<_> = writes
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => Write::Put(name(key), Bytes::from(vec![value; 3])),
                None => Write::Delete(name(key)),
            })
            .collect();
        let real = store.txn(conditions.clone(), writes.clone()).await.unwrap();
        assert_eq!(real, self.apply(&conditions, writes));
    }

    async fn check_list(
        &self,
        store: &Arc<dyn Store>,
        range: Range<String>,
        ago: u64,
        limit: usize,
    ) {
        let at = self.ago(ago);
        let real = store.list(range.clone(), Some(at), limit).await;
        if at < self.oldest {
            assert!(
                matches!(real, Err(StoreError::Compacted { .. })),
                "{real:?}"
            );
            return;
        }
        let expected: Vec<_> = self
            .state(at)
            .values()
            .filter(|pair| range.contains(&pair.key))
            .cloned()
            .collect();
        let shown = if limit == 0 {
            expected.len()
        } else {
            limit.min(expected.len())
        };
        let real = real.unwrap();
        assert_eq!(real.items, expected[..shown]);
        assert_eq!(real.remaining, (expected.len() - shown) as u64);
    }

    async fn check_watch(&self, store: &Arc<dyn Store>, range: Range<String>, ago: u64) {
        let after = self.ago(ago);
        let opened = store.watch(range.clone(), Some(after)).await;
        if after < self.oldest {
            let failed = match opened {
                Err(error) => Some(error),
                Ok(mut watch) => watch.next().await.and_then(Result::err),
            };
            assert!(
                matches!(failed, Some(StoreError::Compacted { .. })),
                "{failed:?}"
            );
            return;
        }
        let mut watch = opened.unwrap();
        let expected = self.changes(&range, after);
        let mut real = Vec::new();
        for _ in &expected {
            real.push(super::next_change(&mut watch).await);
        }
        // The order of one revision's changes is the store's.
        assert!(real.is_sorted_by_key(WatchEvent::revision));
        real.sort_by_key(|event| (event.revision(), event.key().map(str::to_owned)));
        assert_eq!(real, expected);
    }
}
