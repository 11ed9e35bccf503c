//! Bringing a pod down: containers stop within the grace period, then the sandbox, the volumes and
//! the logs go, and last the API object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::plan::{Plan, stop_rank};
use super::worker::{PodUpdate, Worker};
use crate::cri::{ContainerPhase, CriError, ObservedContainer, ObservedPod};
use crate::events::EventType::Normal;
use crate::volumes;
use hull_client::timeouts::scaled;

/// The delay between attempts while the runtime or the API server is away.
const RETRY: Duration = Duration::from_secs(1);
/// How long the final status may take before the object is deleted all the same, before scaling.
const FINAL_STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// What a pod that was removed by force still gets to end by itself.
const MIN_GRACE: Duration = Duration::from_secs(1);

/// A pod's grace period: the deletion's, else the spec's.
pub(crate) fn grace(update: &PodUpdate) -> Duration {
    let pod = &update.pod;
    let spec = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .or(spec)
        .unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).max(MIN_GRACE)
}

impl Worker {
    /// Ends the pod; returns when nothing of it is left on the node and in the API server.
    pub(super) async fn terminate(&mut self) {
        self.probes.stop();
        tracing::info!(pod = %self.identity, "pod ends");
        let mut repeated = false;
        while let Err(error) = self.take_down(repeated).await {
            tracing::warn!(pod = %self.identity, %error, "pod not down yet, trying again");
            tokio::time::sleep(RETRY).await;
            repeated = true;
        }
        self.remove_files();
        self.delete_object().await;
    }

    /// One attempt. Only when it is `repeated`, sandboxes end also with containers that did not
    /// stop: the first time it may be that the runtime just went away, and grace is left.
    async fn take_down(&mut self, repeated: bool) -> Result<(), CriError> {
        let mut observed = self.observe().await?;
        let running = running(&observed);
        for container in &running {
            let message = format!("Stopping container {}", container.name);
            self.container_event(&container.name, Normal, "Killing", message);
        }
        match self.stop_containers(running).await {
            // A runtime that cannot end a container may yet end its sandbox.
            Err(error) if repeated => {
                tracing::warn!(pod = %self.identity, %error, "a container does not stop; its sandbox ends");
            }
            outcome => outcome?,
        }
        for sandbox in &observed.sandboxes {
            self.node.cri.stop_sandbox(&sandbox.id).await?;
        }
        observed = self.observe().await?;
        let removed = self.updates.borrow().removed;
        if !removed {
            let pod = self.pod();
            // No steps: what ended stays ended in the last status.
            self.publish(
                &pod,
                &observed,
                &Plan {
                    finished: true,
                    ..Plan::default()
                },
            );
            let limit = scaled(FINAL_STATUS_TIMEOUT);
            self.status.flush(limit).await;
        }
        for container in observed
            .containers
            .iter()
            .filter(|c| !c.sandbox_id.is_empty())
        {
            self.node.cri.remove_container(&container.id).await?;
        }
        for sandbox in &observed.sandboxes {
            self.node.cri.remove_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }

    /// Stops the containers. A shorter grace period that arrives meanwhile takes effect
    /// at once.
    async fn stop_containers(&mut self, running: Vec<ObservedContainer>) -> Result<(), CriError> {
        loop {
            let grace = grace(&self.updates.borrow_and_update());
            let mut updates = self.updates.clone();
            let stop = self.stop_in_order(&running, grace);
            let shorter = updates.wait_for(|update| self::grace(update) < grace);
            tokio::select! {
                result = stop => return result,
                changed = shorter => {
                    if changed.is_err() {
                        // The agent shuts down; the runtime goes on stopping them.
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sidecars after the others, one after the other in reverse order, within one grace period.
    async fn stop_in_order(
        &self,
        running: &[ObservedContainer],
        grace: Duration,
    ) -> Result<(), CriError> {
        let begun = tokio::time::Instant::now();
        let pod = self.pod();
        let mut ranked: BTreeMap<usize, Vec<&ObservedContainer>> = BTreeMap::new();
        for container in running {
            let rank = stop_rank(&pod, &container.name);
            ranked.entry(rank).or_default().push(container);
        }
        for containers in ranked.values() {
            let left = grace.saturating_sub(begun.elapsed()).max(MIN_GRACE);
            let stops = containers.iter().map(|found| self.stop_one(found, left));
            join_all(stops)
                .await
                .into_iter()
                .collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    async fn stop_one(&self, running: &ObservedContainer, grace: Duration) -> Result<(), CriError> {
        let begun = tokio::time::Instant::now();
        if let Some(container) = self.container(&running.name) {
            let hook = self.pre_stop(&container, &running.id, grace);
            let _ = tokio::time::timeout(grace, hook).await;
        }
        let left = grace.saturating_sub(begun.elapsed()).max(MIN_GRACE);
        self.node.cri.stop_container(&running.id, left).await
    }

    fn remove_files(&mut self) {
        self.subscriptions.clear();
        if let Err(error) = volumes::tear_down(&self.pod_dir()) {
            tracing::warn!(pod = %self.identity, %error, "pod directory not removed");
        }
        if let Err(error) = volumes::tear_down(&self.log_dir()) {
            tracing::warn!(pod = %self.identity, %error, "pod logs not removed");
        }
    }

    /// Deletes the API object for good, until it is gone.
    async fn delete_object(&mut self) {
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), &self.identity.namespace);
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.identity.uid.clone()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut updates = self.updates.clone();
        while !self.updates.borrow().removed {
            match api.delete(&self.identity.name, &parameters).await {
                // Finalizers may hold the object; nothing is left to do for it here.
                Ok(_) => return,
                Err(kube::Error::Api(error)) if error.code == 404 => return,
                Err(error) => {
                    if let Ok(found) = api.get_opt(&self.identity.name).await
                        && found.and_then(|pod| pod.metadata.uid) != Some(self.identity.uid.clone())
                    {
                        return;
                    }
                    tracing::debug!(pod = %self.identity, %error, "pod not deleted, trying again");
                    let gone = updates.wait_for(|update| update.removed);
                    if let Ok(Err(_)) = tokio::time::timeout(RETRY, gone).await {
                        return;
                    }
                }
            }
        }
    }
}

fn running(observed: &ObservedPod) -> Vec<ObservedContainer> {
    observed
        .containers
        .iter()
        .filter(|container| {
            matches!(
                container.phase,
                ContainerPhase::Running | ContainerPhase::Unknown
            )
        })
        .cloned()
        .collect()
}

/// Removes a pod that only the runtime knows.
pub(crate) async fn remove_orphan(
    node: Arc<crate::context::NodeContext>,
    uid: &str,
) -> Result<(), CriError> {
    let observed = node.cri.observe(uid).await?;
    let seconds = observed
        .sandbox()
        .and_then(|sandbox| sandbox.annotations.get(crate::cri::labels::GRACE_PERIOD))
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(30);
    let grace = Duration::from_secs(seconds).max(MIN_GRACE);
    let running = running(&observed);
    let stop = running
        .iter()
        .map(|container| node.cri.stop_container(&container.id, grace));
    for outcome in join_all(stop).await {
        if let Err(error) = outcome {
            tracing::warn!(pod_uid = uid, %error, "a container does not stop; its sandbox ends");
        }
    }
    for sandbox in &observed.sandboxes {
        node.cri.stop_sandbox(&sandbox.id).await?;
    }
    for container in &observed.containers {
        node.cri.remove_container(&container.id).await?;
    }
    for sandbox in &observed.sandboxes {
        node.cri.remove_sandbox(&sandbox.id).await?;
    }
    Ok(())
}
