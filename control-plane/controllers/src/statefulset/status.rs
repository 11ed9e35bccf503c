//! What is said about the pods.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};

use super::{
    StatefulSetController, View, identity,
    slots::{Slots, is_available, is_running_and_ready, is_terminating},
};
use crate::{pods, runtime::WriteError};

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

fn calculate(view: &View<'_>, slots: &Slots) -> StatefulSetStatus {
    let of = |revision: &str| {
        let pods = slots.all();
        count(pods.filter(|pod| !is_terminating(pod) && identity::revision(pod) == revision))
    };
    let old = view.set.status.clone().unwrap_or_default();
    let mut status = StatefulSetStatus {
        observed_generation: view.set.metadata.generation,
        replicas: count(slots.all()),
        ready_replicas: Some(count(slots.all().filter(|pod| is_running_and_ready(pod)))),
        available_replicas: Some(count(slots.all().filter(|pod| is_available(view, pod)))),
        current_replicas: Some(of(&view.current_name)),
        updated_replicas: Some(of(view.update_name)),
        current_revision: Some(view.current_name.clone()),
        update_revision: Some(view.update_name.to_owned()),
        collision_count: view.history.collisions.or(Some(0)),
        conditions: old.conditions,
    };
    // The update is complete when every pod is of the new revision and ready.
    let all = |number: Option<i32>| number == Some(status.replicas);
    if view.is_rolling()
        && status.replicas == view.replicas()
        && all(status.updated_replicas)
        && all(status.ready_replicas)
    {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
    status
}

impl StatefulSetController {
    /// Writes the status if it differs. Gives when a ready pod becomes available.
    pub(super) async fn write_status(
        &self,
        view: &View<'_>,
        slots: &Slots,
    ) -> Result<Option<Duration>, WriteError> {
        let status = calculate(view, slots);
        if view.set.status.as_ref() != Some(&status) {
            let set = StatefulSet {
                status: Some(status),
                ..view.set.clone()
            };
            match self.writer.replace_status(&set).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        let waits = slots
            .all()
            .filter_map(|pod| pods::available_in(pod, view.min_ready_seconds(), view.now));
        Ok(waits.filter(|wait| !wait.is_zero()).min())
    }
}
