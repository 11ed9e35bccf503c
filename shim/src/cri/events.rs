//! GetContainerEvents: what happens to containers, as it happens.

use super::convert;
use crate::container::object::Container;
use crate::shim::{Shim, now_ns};
use hull_cri_api::v1::{ContainerEventResponse, ContainerEventType};
use std::sync::Arc;

/// Tells the subscribers, if there are any.
pub fn publish(shim: &Shim, container: &Arc<Container>, event: ContainerEventType) {
    if shim.events.receiver_count() == 0 {
        return;
    }
    let status = shim.registry.sandbox(&container.sandbox_id).ok();
    let containers = shim.registry.containers_of(&container.sandbox_id);
    // Nobody left since the check above: that is no error.
    let _ = shim.events.send(ContainerEventResponse {
        container_id: container.id.clone(),
        container_event_type: event as i32,
        created_at: now_ns(),
        pod_sandbox_status: status.map(|sandbox| convert::sandbox_status(&sandbox.record())),
        containers_statuses: containers
            .iter()
            .map(|container| convert::container_status(&container.record()))
            .collect(),
    });
}
