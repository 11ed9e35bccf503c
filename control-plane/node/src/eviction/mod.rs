//! Eviction under pressure: when memory, disk, inodes or process ids run short, unused images go
//! first, then pods, one at a time.
//!
//! ```text
//!   /proc, statvfs, CRI ──► signals.rs ──► thresholds.rs: which are met, since when
//!                                              │
//!                 Pressure (node conditions) ◄─┤
//!                                              ▼
//!                             images (disk) ─► ranking.rs: which pod ─► its worker fails it
//! ```
//! Soft thresholds wait for their grace period; a condition stays for the transition period after
//! its cause is gone, so that it does not flap.

pub mod manager;
pub mod ranking;
pub mod signals;
pub mod thresholds;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use signals::Signal;

/// A condition of the node that comes of pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// MemoryPressure.
    Memory,
    /// DiskPressure.
    Disk,
    /// PIDPressure.
    ProcessIds,
}

impl Condition {
    /// The condition's type in the Node's status.
    pub fn kind(self) -> &'static str {
        match self {
            Condition::Memory => "MemoryPressure",
            Condition::Disk => "DiskPressure",
            Condition::ProcessIds => "PIDPressure",
        }
    }

    /// The condition that a signal below its threshold causes.
    pub fn of(signal: Signal) -> Self {
        match signal {
            Signal::MemoryAvailable => Condition::Memory,
            Signal::PidAvailable => Condition::ProcessIds,
            _ => Condition::Disk,
        }
    }
}

/// Why and how a pod has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The pod's status message.
    pub message: String,
    /// What it gets to end by itself.
    pub grace: Duration,
}

/// What the eviction manager has found, for the node's status and the pods' workers.
#[derive(Default)]
pub struct Pressure {
    conditions: Mutex<BTreeSet<Condition>>,
    verdicts: Mutex<HashMap<String, Verdict>>,
    workers: Mutex<HashMap<String, Arc<Notify>>>,
    /// The node's status is to be written soon.
    pub changed: Notify,
}

impl Pressure {
    /// The conditions that hold.
    pub fn conditions(&self) -> BTreeSet<Condition> {
        self.conditions.lock().clone()
    }

    fn set_conditions(&self, conditions: BTreeSet<Condition>) {
        let changed = std::mem::replace(&mut *self.conditions.lock(), conditions.clone());
        if changed != conditions {
            self.changed.notify_one();
        }
    }

    /// Takes note of a pod's worker, to be woken by a verdict.
    pub fn register(&self, uid: &str, poke: Arc<Notify>) {
        self.workers.lock().insert(uid.to_owned(), poke);
    }

    /// Forgets a pod.
    pub fn unregister(&self, uid: &str) {
        self.workers.lock().remove(uid);
        self.verdicts.lock().remove(uid);
    }

    /// The verdict on a pod, if there is one.
    pub fn verdict(&self, uid: &str) -> Option<Verdict> {
        self.verdicts.lock().get(uid).cloned()
    }

    /// Condemns a pod; false when it is condemned already or has no worker.
    fn evict(&self, uid: &str, verdict: Verdict) -> bool {
        let Some(poke) = self.workers.lock().get(uid).cloned() else {
            return false;
        };
        let mut verdicts = self.verdicts.lock();
        if verdicts.contains_key(uid) {
            return false;
        }
        verdicts.insert(uid.to_owned(), verdict);
        poke.notify_one();
        true
    }
}
