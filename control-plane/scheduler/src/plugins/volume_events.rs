//! What can help a pod whose volumes a node does not reach, whichever plugin says so: the volumes
//! change, or the node does.

use crate::{framework::Event, pod::PodInfo};

/// Pods have no say in where volumes are.
pub(super) fn ignores(event: &Event<'_>) -> bool {
    matches!(event, Event::PodAdded(_) | Event::PodRemoved { .. })
}

/// Whether the event can undo a refusal of the pod.
pub(super) fn cures(pod: &PodInfo, event: &Event<'_>) -> bool {
    let cures = match event {
        Event::VolumesChanged | Event::NodeAdded(_) => true,
        Event::NodeUpdated { changes, .. } => changes.labels,
        _ => false,
    };
    cures && !pod.claims.is_empty()
}
