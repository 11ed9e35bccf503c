//! PrioritySort: higher priority first, then older first.

use crate::{
    framework::{Plugin, QueueSort},
    pod::PodInfo,
};

/// See the module.
pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }
}

impl QueueSort for PrioritySort {
    fn rank(&self, pod: &PodInfo) -> (i64, i64) {
        let created = pod.pod.metadata.creation_timestamp.as_ref();
        (
            -i64::from(pod.priority()),
            created.map_or(0, |time| time.0.as_millisecond()),
        )
    }
}
