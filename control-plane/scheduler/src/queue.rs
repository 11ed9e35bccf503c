//! Pods that want a node.
//!
//! ```text
//!          ┌────────── time ──────────┐
//!          ▼                          │
//! add ─► active ─► in flight ─► backoff ◄── event ── unschedulable
//!                      │  no node does ─────────────────▲
//!                      └─► bound (removed)            gated: until its gates are lifted
//! ```

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::pod::PodInfo;

/// Where a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active { rank: (i64, i64), sequence: u64 },
    Backoff { until: Instant },
    Unschedulable { since: Instant },
    Gated,
    InFlight,
}

#[derive(Debug)]
struct Entry {
    info: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    last_failure: Option<Instant>,
    /// Filters that refused, see [`crate::framework::Diagnosis::refused_by`].
    refused_by: u64,
    /// It changed while it was in flight.
    changed: bool,
    /// [`Queue::moves`] when it was taken: a difference means that something happened since.
    taken_at: u64,
}

/// Sizes of the parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueSizes {
    /// Ready.
    pub active: usize,
    /// Waiting for time.
    pub backoff: usize,
    /// Waiting for a change.
    pub unschedulable: usize,
    /// Held back by their gates.
    pub gated: usize,
}

/// The queue. Time comes in as an argument.
pub struct Queue {
    entries: HashMap<Arc<str>, Entry>,
    active: BTreeSet<((i64, i64), u64, Arc<str>)>,
    backoff: BTreeSet<(Instant, Arc<str>)>,
    unschedulable: BTreeSet<(Instant, Arc<str>)>,
    /// The same by the filters that refused: most happenings concern few of them.
    refused: HashMap<u64, BTreeSet<(Instant, Arc<str>)>>,
    gated: HashSet<Arc<str>>,
    sequence: u64,
    /// Happenings so far that may have helped somebody.
    moves: u64,
    initial_backoff: Duration,
    max_backoff: Duration,
    unschedulable_retry: Duration,
}

impl Queue {
    /// An empty queue.
    pub fn new(
        initial_backoff: Duration,
        max_backoff: Duration,
        unschedulable_retry: Duration,
    ) -> Self {
        Queue {
            entries: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            unschedulable: BTreeSet::new(),
            refused: HashMap::new(),
            gated: HashSet::new(),
            sequence: 0,
            moves: 0,
            initial_backoff,
            max_backoff,
            unschedulable_retry,
        }
    }

    /// A pod without a node was created or changed. `rank` is its place among the active; a
    /// `gated` one is held back.
    pub fn apply(&mut self, info: Arc<PodInfo>, rank: (i64, i64), gated: bool, now: Instant) {
        let uid = info.uid.clone();
        let Some(entry) = self.entries.get_mut(&uid) else {
            let entry = Entry {
                info,
                place: Place::Gated,
                attempts: 0,
                last_failure: None,
                refused_by: 0,
                changed: false,
                taken_at: 0,
            };
            self.entries.insert(uid.clone(), entry);
            if gated {
                self.gated.insert(uid);
            } else {
                self.activate(&uid, rank);
            }
            return;
        };
        let changed = entry.info.pod.spec != info.pod.spec
            || entry.info.pod.metadata.labels != info.pod.metadata.labels;
        entry.info = info;
        match entry.place {
            _ if !changed => {}
            Place::InFlight => entry.changed = true,
            Place::Gated if !gated => self.activate(&uid, rank),
            Place::Unschedulable { .. } => self.wake(&uid, rank, now),
            _ => {}
        }
    }

    /// The pod is gone or has a node.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let (key, _) = self.entries.get_key_value(uid)?;
        let key = key.clone();
        self.unlink(&key);
        self.entries.remove(&key).map(|entry| entry.info)
    }

    /// Uids of all pods in the queue, in flight too.
    pub fn uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.keys()
    }

    /// The first active pod, which is then in flight.
    pub fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let (_, _, uid) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.changed = false;
        entry.taken_at = self.moves;
        Some(entry.info.clone())
    }

    /// No node does for the pod in flight.
    pub fn no_node(&mut self, uid: &str, refused_by: u64, rank: (i64, i64), now: Instant) {
        let moves = self.moves;
        let Some((uid, entry)) = self.in_flight(uid) else {
            return;
        };
        entry.last_failure = Some(now);
        entry.refused_by = refused_by;
        if entry.changed || entry.taken_at != moves {
            self.wake(&uid, rank, now);
        } else {
            self.unlink(&uid);
            self.unschedulable.insert((now, uid.clone()));
            let refused = self.refused.entry(refused_by).or_default();
            refused.insert((now, uid.clone()));
            self.set_place(&uid, Place::Unschedulable { since: now });
        }
    }

    /// Writing the decision failed: try again after the back-off.
    pub fn failed(&mut self, uid: &str, rank: (i64, i64), now: Instant) {
        let Some((uid, entry)) = self.in_flight(uid) else {
            return;
        };
        entry.last_failure = Some(now);
        self.wake(&uid, rank, now);
    }

    /// Something happened that may help pods that `helps` accepts, of those whose refusing filters
    /// `concerns` accepts.
    pub fn move_unschedulable(
        &mut self,
        now: Instant,
        rank: impl Fn(&PodInfo) -> (i64, i64),
        concerns: impl Fn(u64) -> bool,
        helps: impl Fn(u64, &PodInfo) -> bool,
    ) {
        self.moves += 1;
        let concerned = self.refused.iter().filter(|(by, _)| concerns(**by));
        let woken: Vec<_> = concerned
            .flat_map(|(_, pods)| pods)
            .filter_map(|(_, uid)| {
                let entry = self.entries.get(uid)?;
                helps(entry.refused_by, &entry.info).then(|| (uid.clone(), rank(&entry.info)))
            })
            .collect();
        for (uid, rank) in woken {
            self.wake(&uid, rank, now);
        }
    }

    /// Moves what time has made ready.
    pub fn advance(&mut self, now: Instant, rank: impl Fn(&PodInfo) -> (i64, i64)) {
        let mut due = Vec::new();
        due.extend(
            self.backoff
                .iter()
                .take_while(|(at, _)| *at <= now)
                .map(|(_, u)| u.clone()),
        );
        let retry = self.unschedulable_retry;
        due.extend(
            self.unschedulable
                .iter()
                .take_while(|(at, _)| *at + retry <= now)
                .map(|(_, u)| u.clone()),
        );
        for uid in due {
            if let Some(entry) = self.entries.get(&uid) {
                let rank = rank(&entry.info);
                self.activate(&uid, rank);
            }
        }
    }

    /// When [`Queue::advance`] has something to do next.
    pub fn next_wake(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(at, _)| *at);
        let retry = self
            .unschedulable
            .first()
            .map(|(at, _)| *at + self.unschedulable_retry);
        [backoff, retry].into_iter().flatten().min()
    }

    /// Whether a pod is ready.
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Sizes.
    pub fn sizes(&self) -> QueueSizes {
        QueueSizes {
            active: self.active.len(),
            backoff: self.backoff.len(),
            unschedulable: self.unschedulable.len(),
            gated: self.gated.len(),
        }
    }

    fn in_flight(&mut self, uid: &str) -> Option<(Arc<str>, &mut Entry)> {
        let key = self.entries.get_key_value(uid)?.0.clone();
        let entry = self.entries.get_mut(uid)?;
        (entry.place == Place::InFlight).then_some((key, entry))
    }

    fn backoff_of(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        self.initial_backoff
            .saturating_mul(1 << doublings)
            .min(self.max_backoff)
    }

    /// To active, or to backoff while its time is not over.
    fn wake(&mut self, uid: &Arc<str>, rank: (i64, i64), now: Instant) {
        let Some(entry) = self.entries.get(uid) else {
            return;
        };
        let until = entry
            .last_failure
            .map(|at| at + self.backoff_of(entry.attempts));
        match until.filter(|until| *until > now) {
            Some(until) => {
                self.unlink(uid);
                self.backoff.insert((until, uid.clone()));
                self.set_place(uid, Place::Backoff { until });
            }
            None => self.activate(uid, rank),
        }
    }

    fn activate(&mut self, uid: &Arc<str>, rank: (i64, i64)) {
        self.unlink(uid);
        self.sequence += 1;
        self.active.insert((rank, self.sequence, uid.clone()));
        self.set_place(
            uid,
            Place::Active {
                rank,
                sequence: self.sequence,
            },
        );
    }

    fn set_place(&mut self, uid: &Arc<str>, place: Place) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.place = place;
        }
    }

    fn unlink(&mut self, uid: &Arc<str>) {
        let Some(entry) = self.entries.get(uid) else {
            return;
        };
        match entry.place {
            Place::Active { rank, sequence } => {
                self.active.remove(&(rank, sequence, uid.clone()));
            }
            Place::Backoff { until } => {
                self.backoff.remove(&(until, uid.clone()));
            }
            Place::Unschedulable { since } => {
                let item = (since, uid.clone());
                self.unschedulable.remove(&item);
                if let Some(refused) = self.refused.get_mut(&entry.refused_by) {
                    refused.remove(&item);
                    if refused.is_empty() {
                        self.refused.remove(&entry.refused_by);
                    }
                }
            }
            Place::Gated => {
                self.gated.remove(uid);
            }
            Place::InFlight => {}
        }
    }
}
