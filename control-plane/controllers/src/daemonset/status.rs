//! What is said about the pods.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

use super::{DaemonSetController, View, nodes};
use crate::{
    pods::{available_in, is_active, is_ready},
    runtime::WriteError,
};

fn calculate(view: &View<'_>) -> DaemonSetStatus {
    let old = view.set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: view.set.metadata.generation,
        collision_count: view.history.collisions,
        conditions: old.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in view.nodes.values() {
        let mut pods: Vec<_> = view.on(node).iter().filter(|pod| is_active(pod)).collect();
        if !nodes::fit(view, node).should_run {
            if !pods.is_empty() {
                status.number_misscheduled += 1;
            }
            continue;
        }
        status.desired_number_scheduled += 1;
        // While a surge goes on, what serves counts.
        pods.sort_by_key(|pod| (!view.is_available(pod), !is_ready(pod)));
        let Some(best) = pods.first() else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(is_ready(best));
        available += i32::from(view.is_available(best));
        updated += i32::from(pods.iter().any(|pod| view.is_current(pod)));
    }
    let unavailable = status.desired_number_scheduled - available;
    let nonzero = |number: i32| (number != 0).then_some(number);
    status.updated_number_scheduled = nonzero(updated);
    status.number_available = nonzero(available);
    status.number_unavailable = nonzero(unavailable);
    status
}

impl DaemonSetController {
    /// Writes the status if it differs. Gives when a ready pod becomes available.
    pub(super) async fn write_status(
        &self,
        view: &View<'_>,
    ) -> Result<Option<Duration>, WriteError> {
        let status = calculate(view);
        if view.set.status.as_ref() != Some(&status) {
            let set = DaemonSet {
                status: Some(status),
                ..view.set.clone()
            };
            match self.control.writer.replace_status(&set).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        let min_ready = view.spec.min_ready_seconds.unwrap_or(0);
        let waits = view
            .by_node
            .values()
            .flatten()
            .filter_map(|pod| available_in(pod, min_ready, view.now));
        Ok(waits.filter(|wait| !wait.is_zero()).min())
    }
}
