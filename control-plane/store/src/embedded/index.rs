//! Every key at every retained revision, and the retained changes in order. No IO.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{Bound, Range},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{Retention, expiry::UnixMillis};
use crate::{KeyValue, ListPage, Revision, StoreError, WatchEvent};

/// A key's state from `mod_revision` on.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// `None`: deleted.
    pub value: Option<Bytes>,
    /// When it ends by itself.
    pub end: Option<UnixMillis>,
}

impl Version {
    pub(super) fn key_value(&self, key: &str) -> Option<KeyValue> {
        self.value.as_ref().map(|value| KeyValue {
            key: key.to_owned(),
            value: value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        })
    }
}

/// One key changed by one transaction.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub key: Arc<str>,
    pub version: Version,
    /// What was there; `None` when the key did not exist.
    pub previous: Option<Version>,
    pub at: Instant,
}

impl Change {
    fn event(&self) -> WatchEvent {
        let previous = self
            .previous
            .as_ref()
            .and_then(|version| version.key_value(&self.key));
        match (self.version.key_value(&self.key), previous) {
            (Some(current), previous) => WatchEvent::Put { current, previous },
            (None, Some(previous)) => WatchEvent::Delete {
                previous,
                revision: self.version.mod_revision,
            },
            // The writer records no deletion of an absent key.
            (None, None) => WatchEvent::Progress(self.version.mod_revision),
        }
    }

    fn retained_bytes(&self) -> usize {
        self.version.value.as_ref().map_or(0, Bytes::len) + self.key.len()
    }
}

/// A piece of history for one range.
pub(super) struct Replay {
    pub events: Vec<WatchEvent>,
    /// Everything in the range up to and including this revision is in `events` or came before.
    pub through: Revision,
    /// Nothing newer is there.
    pub complete: bool,
}

/// A stored entry, as the file has it.
pub(super) struct Entry {
    pub key: String,
    pub version: Version,
}

/// The in-memory store.
pub(super) struct Index {
    /// Versions of each key in revision order; never empty. The last may be a deletion.
    keys: BTreeMap<Arc<str>, Vec<Version>>,
    /// Keys that end by themselves, the first first.
    ends: BTreeSet<(UnixMillis, Arc<str>)>,
    /// All changes after `oldest`, in order.
    history: VecDeque<Change>,
    history_bytes: usize,
    revision: Revision,
    /// The oldest revision that can be listed or watched from.
    oldest: Revision,
}

impl Index {
    pub(super) fn load(revision: Revision, entries: Vec<Entry>) -> Self {
        let mut ends = BTreeSet::new();
        let mut keys: BTreeMap<Arc<str>, Vec<Version>> = BTreeMap::new();
        for Entry { key, version } in entries {
            let key: Arc<str> = key.into();
            ends.extend(version.end.map(|end| (end, key.clone())));
            keys.insert(key, vec![version]);
        }
        Index {
            keys,
            ends,
            history: VecDeque::new(),
            history_bytes: 0,
            revision,
            oldest: revision,
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// The newest version, deletions included as `None`.
    pub(super) fn newest(&self, key: &str) -> Option<&Version> {
        self.keys
            .get(key)?
            .last()
            .filter(|version| version.value.is_some())
    }

    pub(super) fn get(&self, key: &str) -> Option<KeyValue> {
        self.newest(key)?.key_value(key)
    }

    fn range(&self, range: &Range<String>) -> impl Iterator<Item = (&Arc<str>, &Vec<Version>)> {
        // BTreeMap panics on an inverted range.
        let end = range.end.as_str().max(range.start.as_str());
        self.keys
            .range::<str, _>((Bound::Included(range.start.as_str()), Bound::Excluded(end)))
    }

    pub(super) fn list(
        &self,
        range: &Range<String>,
        revision: Option<Revision>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let at = revision.unwrap_or(self.revision);
        self.check(at)?;
        let mut items = Vec::new();
        let mut remaining = 0;
        for (key, versions) in self.range(range) {
            let Some(version) = versions
                .iter()
                .rev()
                .find(|version| version.mod_revision <= at)
                .filter(|version| version.value.is_some())
            else {
                continue;
            };
            if limit != 0 && items.len() == limit {
                remaining += 1;
            } else {
                items.extend(version.key_value(key));
            }
        }
        Ok(ListPage {
            items,
            revision: at,
            remaining,
        })
    }

    pub(super) fn count_all(&self) -> u64 {
        let newest = self.keys.values().filter_map(|versions| versions.last());
        newest.filter(|version| version.value.is_some()).count() as u64
    }

    pub(super) fn count(&self, range: &Range<String>) -> u64 {
        self.range(range)
            .filter(|(_, versions)| versions.last().is_some_and(|last| last.value.is_some()))
            .count() as u64
    }

    /// Whether the state at `revision` is still (and already) known.
    pub(super) fn check(&self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::Future {
                asked: revision,
                current: self.revision,
            });
        }
        if revision < self.oldest {
            return Err(StoreError::Compacted {
                asked: revision,
                oldest: self.oldest,
            });
        }
        Ok(())
    }

    /// Adds changes in revision order; `revision` is that of the last one.
    pub(super) fn apply(&mut self, changes: Vec<Change>, revision: Revision) {
        for change in changes {
            if let Some(end) = change.previous.as_ref().and_then(|version| version.end) {
                self.ends.remove(&(end, change.key.clone()));
            }
            if let Some(end) = change.version.end {
                self.ends.insert((end, change.key.clone()));
            }
            self.keys
                .entry(change.key.clone())
                .or_insert_with(|| Vec::with_capacity(1))
                .push(change.version.clone());
            self.history_bytes += change.retained_bytes();
            self.history.push_back(change);
        }
        self.revision = revision;
    }

    /// Keys that have reached their end, with the revision they were last written at, at most
    /// `most`; and the next end.
    pub(super) fn due(
        &self,
        now: UnixMillis,
        most: usize,
    ) -> (Vec<(String, Revision)>, Option<UnixMillis>) {
        let due = self
            .ends
            .iter()
            .take_while(|(end, _)| *end <= now)
            .filter_map(|(_, key)| Some((key.to_string(), self.newest(key)?.mod_revision)))
            .take(most)
            .collect();
        (due, self.ends.first().map(|(end, _)| *end))
    }

    /// The range's changes after `after`, looking at about `scan` changes of any key.
    pub(super) fn replay(
        &self,
        range: &Range<String>,
        after: Revision,
        scan: usize,
    ) -> Result<Replay, StoreError> {
        self.check(after)?;
        let start = self
            .history
            .partition_point(|change| change.version.mod_revision <= after);
        let mut events = Vec::new();
        let mut through = after;
        for (seen, change) in self.history.range(start..).enumerate() {
            // A revision's changes stay together: the cursor is a revision.
            if seen >= scan && change.version.mod_revision != through {
                return Ok(Replay {
                    events,
                    through,
                    complete: false,
                });
            }
            through = change.version.mod_revision;
            if *range.start <= *change.key && *change.key < *range.end {
                events.push(change.event());
            }
        }
        Ok(Replay {
            events,
            through: self.revision,
            complete: true,
        })
    }

    /// Drops the history before `revision`.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::Future {
                asked: revision,
                current: self.revision,
            });
        }
        while self
            .history
            .front()
            .is_some_and(|change| change.version.mod_revision <= revision)
        {
            self.drop_oldest_change();
        }
        self.oldest = self.oldest.max(revision);
        Ok(())
    }

    /// Drops what exceeds the retention.
    pub(super) fn trim(&mut self, now: Instant, retention: &Retention) {
        while let Some(front) = self.history.front() {
            let exceeded = self.history.len() > retention.max_changes
                || self.history_bytes > retention.max_bytes
                || now.saturating_duration_since(front.at) > retention.max_age;
            if !exceeded {
                return;
            }
            let revision = front.version.mod_revision;
            while self
                .history
                .front()
                .is_some_and(|next| next.version.mod_revision == revision)
            {
                self.drop_oldest_change();
            }
            self.oldest = revision;
        }
    }

    fn drop_oldest_change(&mut self) {
        let Some(change) = self.history.pop_front() else {
            return;
        };
        self.history_bytes -= change.retained_bytes();
        let Some(versions) = self.keys.get_mut(&*change.key) else {
            return;
        };
        let revision = change.version.mod_revision;
        let superseded = versions
            .iter()
            .take_while(|version| version.mod_revision < revision)
            .count();
        versions.drain(..superseded);
        // Most keys are written once: spare room would be most of what the index takes.
        versions.shrink_to_fit();
        if versions
            .first()
            .is_some_and(|first| first.mod_revision == revision && first.value.is_none())
        {
            versions.remove(0);
        }
        if versions.is_empty() {
            self.keys.remove(&*change.key);
        }
    }

    #[cfg(test)]
    pub(super) fn retained(&self) -> (usize, usize, usize) {
        (
            self.history.len(),
            self.history_bytes,
            self.keys.values().map(Vec::len).sum(),
        )
    }
}
