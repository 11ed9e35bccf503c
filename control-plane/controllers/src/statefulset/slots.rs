//! The pods by number.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

use super::{View, identity};
use crate::pods;

/// See the module.
pub(crate) struct Slots {
    /// One per wanted number; `None`: missing.
    pub wanted: BTreeMap<i32, Option<Arc<Pod>>>,
    /// Pods of other numbers, the highest first.
    pub condemned: Vec<(i32, Arc<Pod>)>,
}

pub(super) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub(super) fn is_running_and_ready(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

pub(super) fn is_healthy(pod: &Pod) -> bool {
    is_running_and_ready(pod) && !is_terminating(pod)
}

pub(super) fn is_available(view: &View<'_>, pod: &Pod) -> bool {
    let wait = pods::available_in(pod, view.min_ready_seconds(), view.now);
    is_healthy(pod) && wait.is_some_and(|wait| wait.is_zero())
}

impl Slots {
    pub fn new(view: &View<'_>, pods: Vec<Arc<Pod>>) -> Self {
        let end = view.start().saturating_add(view.replicas());
        let mut wanted: BTreeMap<i32, Option<Arc<Pod>>> =
            (view.start()..end).map(|ordinal| (ordinal, None)).collect();
        let mut condemned = Vec::new();
        for pod in pods {
            let Some(ordinal) = identity::ordinal(view.set, &pod) else {
                continue;
            };
            match wanted.get_mut(&ordinal) {
                Some(slot) => *slot = Some(pod),
                None => condemned.push((ordinal, pod)),
            }
        }
        condemned.sort_by_key(|(ordinal, _)| Reverse(*ordinal));
        Slots { wanted, condemned }
    }

    /// All pods.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let wanted = self.wanted.values().flatten();
        wanted.chain(self.condemned.iter().map(|(_, pod)| pod))
    }

    /// The uid of the lowest pod that is not healthy: scaling down may delete it also while
    /// others wait for it.
    pub fn first_unhealthy(&self) -> Option<&str> {
        let by_number = self
            .wanted
            .values()
            .flatten()
            .chain(self.condemned.iter().rev().map(|(_, pod)| pod));
        let mut unhealthy = by_number.filter(|pod| !is_healthy(pod));
        unhealthy.next()?.metadata.uid.as_deref()
    }
}
