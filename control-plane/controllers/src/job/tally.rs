//! Counting ended pods, each once.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::{
    batch::v1::{JobSpec, JobStatus},
    core::v1::Pod,
};
use parking_lot::Mutex;

use super::{
    backoff,
    failure_policy::{self, Outcome},
    indexes, is_indexed, is_tracked, replaces_only_failed,
};
use crate::pods::phase;

/// Most pods noted in one round; Kubernetes' limit, for the object's size.
const MAX_UNCOUNTED: usize = 500;

/// Pods whose finalizer was taken away but still shows in the informer.
#[derive(Default)]
pub(crate) struct RemovedFinalizers {
    uids: Mutex<HashSet<String>>,
}

impl RemovedFinalizers {
    /// It is about to be taken away.
    pub fn expect(&self, uid: &str) {
        self.uids.lock().insert(uid.to_owned());
    }

    /// It shows, or the request failed.
    pub fn seen(&self, uid: &str) {
        self.uids.lock().remove(uid);
    }

    fn contains(&self, uid: &str) -> bool {
        self.uids.lock().contains(uid)
    }
}

/// What has ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Of the status, after what is known to be counted was added.
    pub succeeded: i32,
    pub failed: i32,
    /// Noted, finalizer not yet gone.
    pub uncounted_succeeded: BTreeSet<String>,
    pub uncounted_failed: BTreeSet<String>,
    /// Pods whose finalizer may go once the status is written.
    pub release: Vec<Arc<Pod>>,
    /// Indexes with a success.
    pub succeeded_indexes: BTreeSet<i32>,
    /// Indexes that have used up their own back-off limit.
    pub failed_indexes: BTreeSet<i32>,
    /// The policy says that the whole job fails: why.
    pub fail_job: Option<String>,
    /// More ended pods than could be noted.
    pub more: bool,
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The pod has failed, or will not come back from being deleted.
pub(crate) fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.deletion_timestamp.is_some() && !replaces_only_failed(spec),
    }
}

impl Tally {
    pub fn of(
        spec: &JobSpec,
        status: &JobStatus,
        pods: &[Arc<Pod>],
        removed: &RemovedFinalizers,
    ) -> Self {
        let tracked: HashMap<&str, &Arc<Pod>> = pods
            .iter()
            .filter(|pod| is_tracked(pod) && !removed.contains(uid(pod)))
            .map(|pod| (uid(pod), pod))
            .collect();
        let completions = spec.completions.unwrap_or(0);
        let parse = |text: &Option<String>| match text {
            Some(text) if is_indexed(spec) => indexes::parse(text, completions),
            _ => BTreeSet::new(),
        };
        let mut tally = Tally {
            succeeded: status.succeeded.unwrap_or(0),
            failed: status.failed.unwrap_or(0),
            succeeded_indexes: parse(&status.completed_indexes),
            failed_indexes: parse(&status.failed_indexes),
            ..Tally::default()
        };
        tally.count_released(spec, status, &tracked);
        let mut ended: Vec<&Arc<Pod>> = tracked.values().copied().collect();
        ended.sort_by_key(|pod| uid(pod));
        for pod in ended {
            tally.look_at(spec, pod);
        }
        tally
    }

    /// Notes whose pods have no finalizer any more become counts.
    fn count_released(
        &mut self,
        spec: &JobSpec,
        status: &JobStatus,
        tracked: &HashMap<&str, &Arc<Pod>>,
    ) {
        let noted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        for uid in noted.succeeded.into_iter().flatten() {
            if tracked.contains_key(&*uid) {
                self.uncounted_succeeded.insert(uid);
            } else if !is_indexed(spec) {
                self.succeeded = self.succeeded.saturating_add(1);
            }
        }
        for uid in noted.failed.into_iter().flatten() {
            if tracked.contains_key(&*uid) {
                self.uncounted_failed.insert(uid);
            } else {
                self.failed = self.failed.saturating_add(1);
            }
        }
    }

    fn look_at(&mut self, spec: &JobSpec, pod: &Arc<Pod>) {
        let index = indexes::of(pod, spec.completions.unwrap_or(0));
        let noted =
            self.uncounted_succeeded.contains(uid(pod)) || self.uncounted_failed.contains(uid(pod));
        let succeeded = phase(pod) == "Succeeded";
        let failed = !succeeded && has_failed(spec, pod);
        if noted {
            self.release.push(pod.clone());
        } else if self.is_full() {
            self.more |= succeeded || failed;
        } else if is_indexed(spec) && index.is_none() {
            // Not a pod of ours to count.
            if succeeded || failed {
                self.release.push(pod.clone());
            }
        } else if succeeded {
            // Several pods of one index count as one success.
            if index.is_none_or(|index| self.succeeded_indexes.insert(index)) {
                self.uncounted_succeeded.insert(uid(pod).to_owned());
            }
            self.release.push(pod.clone());
        } else if failed {
            self.note_failure(spec, pod, index);
        }
    }

    fn note_failure(&mut self, spec: &JobSpec, pod: &Arc<Pod>, index: Option<i32>) {
        let outcome = failure_policy::outcome(spec, pod);
        match (&outcome, index) {
            (Outcome::FailJob(message), _) => {
                self.fail_job.get_or_insert_with(|| message.clone());
            }
            (Outcome::FailIndex, Some(index)) => {
                self.failed_indexes.insert(index);
            }
            (Outcome::Count, Some(index)) => {
                let limit = spec.backoff_limit_per_index;
                if limit.is_some_and(|limit| backoff::index_failures(pod) >= limit) {
                    self.failed_indexes.insert(index);
                }
            }
            _ => {}
        }
        if outcome != Outcome::Ignore {
            self.uncounted_failed.insert(uid(pod).to_owned());
        }
        self.release.push(pod.clone());
    }

    fn is_full(&self) -> bool {
        self.uncounted_succeeded.len() + self.uncounted_failed.len() >= MAX_UNCOUNTED
    }

    /// All successes, noted ones too.
    pub fn all_succeeded(&self, spec: &JobSpec) -> i32 {
        if is_indexed(spec) {
            return count(self.succeeded_indexes.len());
        }
        self.succeeded
            .saturating_add(count(self.uncounted_succeeded.len()))
    }

    /// All failures, noted ones too.
    pub fn all_failed(&self) -> i32 {
        self.failed
            .saturating_add(count(self.uncounted_failed.len()))
    }

    /// Everything that ended is counted.
    pub fn is_settled(&self) -> bool {
        self.uncounted_succeeded.is_empty()
            && self.uncounted_failed.is_empty()
            && self.release.is_empty()
            && !self.more
    }
}

pub(crate) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
