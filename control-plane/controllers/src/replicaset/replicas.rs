//! Creating and deleting pods.

use std::sync::Arc;

use futures::future::join_all;
use hull_client::events::{EventType, reference};
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, PodTemplateSpec},
    },
    jiff::Timestamp,
};
use kube::api::{DeleteParams, ObjectMeta};

use super::{ReplicaSetController, rank::least_useful};
use crate::{
    adopt::controller_reference,
    runtime::{Key, ReconcileError, WriteError},
};

/// Most pods created or deleted in one round.
const BURST: usize = 500;
/// Size of the first batch of creations.
const FIRST_BATCH: usize = 1;

/// What stopped a round; for the condition ReplicaFailure.
#[derive(Debug)]
pub(super) struct Failure {
    pub reason: &'static str,
    pub error: ReconcileError,
}

fn failure(reason: &'static str, error: WriteError) -> Failure {
    Failure {
        reason,
        error: error.into(),
    }
}

impl ReplicaSetController {
    pub(super) async fn manage_replicas(
        &self,
        key: &Key,
        set: &ReplicaSet,
        pods: &[Arc<Pod>],
    ) -> Result<(), Failure> {
        let wanted = set
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1)
            .max(0);
        let wanted = usize::try_from(wanted).unwrap_or(0);
        if pods.len() < wanted {
            self.create_pods(key, set, (wanted - pods.len()).min(BURST))
                .await
        } else if pods.len() > wanted {
            self.delete_pods(key, set, pods, (pods.len() - wanted).min(BURST))
                .await
        } else {
            Ok(())
        }
    }

    async fn create_pods(&self, key: &Key, set: &ReplicaSet, count: usize) -> Result<(), Failure> {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let pod = pod_from_template(set, template);
        self.expectations.expect_creations(key, count);
        let mut remaining = count;
        let mut batch = FIRST_BATCH;
        while remaining > 0 {
            let size = batch.min(remaining);
            let created = join_all((0..size).map(|_| self.create_pod(set, &pod))).await;
            let failed: Vec<WriteError> = created.into_iter().filter_map(Result::err).collect();
            remaining -= size;
            if !failed.is_empty() {
                // Neither these nor those not tried will show in the informer.
                self.expectations
                    .creations_over(key, failed.len() + remaining);
            }
            if let Some(error) = failed.into_iter().next() {
                // Its pods are going anyway.
                return if error.is_namespace_terminating() {
                    Ok(())
                } else {
                    Err(failure("FailedCreate", error))
                };
            }
            batch *= 2;
        }
        Ok(())
    }

    async fn create_pod(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), WriteError> {
        match self.writer.create_object(pod).await {
            Ok(created) => {
                let name = created.metadata.name.unwrap_or_default();
                self.recorder.event(
                    reference(set),
                    EventType::Normal,
                    "SuccessfulCreate",
                    format!("Created pod: {name}"),
                );
                Ok(())
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    self.recorder.event(
                        reference(set),
                        EventType::Warning,
                        "FailedCreate",
                        format!("Error creating: {}", error.message()),
                    );
                }
                Err(error)
            }
        }
    }

    async fn delete_pods(
        &self,
        key: &Key,
        set: &ReplicaSet,
        pods: &[Arc<Pod>],
        count: usize,
    ) -> Result<(), Failure> {
        let doomed = least_useful(pods, count, Timestamp::now());
        let uids = doomed
            .iter()
            .map(|pod| pod.metadata.uid.clone().unwrap_or_default());
        self.expectations.expect_deletions(key, uids);
        let deleted = join_all(doomed.iter().map(|pod| self.delete_pod(key, set, pod))).await;
        match deleted.into_iter().find_map(Result::err) {
            Some(error) => Err(failure("FailedDelete", error)),
            None => Ok(()),
        }
    }

    async fn delete_pod(&self, key: &Key, set: &ReplicaSet, pod: &Pod) -> Result<(), WriteError> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        match self
            .writer
            .delete_object(pod, DeleteParams::default())
            .await
        {
            Ok(()) => {
                self.recorder.event(
                    reference(set),
                    EventType::Normal,
                    "SuccessfulDelete",
                    format!("Deleted pod: {name}"),
                );
                Ok(())
            }
            Err(error) => {
                self.expectations.deletion_over(key, uid);
                if error.is_not_found() || error.is_conflict() {
                    return Ok(());
                }
                self.recorder.event(
                    reference(set),
                    EventType::Warning,
                    "FailedDelete",
                    format!("Error deleting: {}", error.message()),
                );
                Err(error)
            }
        }
    }
}

fn pod_from_template(set: &ReplicaSet, template: Option<&PodTemplateSpec>) -> Pod {
    let template = template.cloned().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
