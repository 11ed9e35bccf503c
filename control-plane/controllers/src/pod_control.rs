//! Creating and deleting the pods of an owner: slowly at first, with expectations and events.

use std::sync::Arc;

use futures::future::join_all;
use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::{
    Resource,
    api::{DeleteParams, ObjectMeta},
};

use crate::{
    adopt::controller_reference,
    runtime::{Expectations, Key, ReconcileError, WriteError, Writer},
};

/// Most pods created or deleted in one round.
pub const BURST: usize = 500;
/// Size of the first batch of creations; each further one is twice as large.
const FIRST_BATCH: usize = 1;

/// What stopped a round; for the conditions of the owner.
#[derive(Debug)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// The cause.
    pub error: ReconcileError,
}

/// What every owner of pods writes with.
pub struct PodControl {
    /// The way to the API server.
    pub writer: Arc<dyn Writer>,
    /// Where events go.
    pub recorder: Recorder,
    /// What was written and not seen yet.
    pub expectations: Arc<Expectations>,
}

impl PodControl {
    /// With no expectations yet.
    pub fn new(writer: Arc<dyn Writer>, recorder: Recorder) -> Self {
        PodControl {
            writer,
            recorder,
            expectations: Arc::default(),
        }
    }

    /// Deletes and creates these pods, at most [`BURST`] of each. The next round of the owner
    /// must wait until the expectations are satisfied.
    ///
    /// # Errors
    /// The first request that failed for another reason than that its pod is gone.
    pub async fn change<O: Resource<DynamicType = ()>>(
        &self,
        owner: &O,
        mut create: Vec<Pod>,
        delete: &[Arc<Pod>],
    ) -> Result<(), Failure> {
        let key = Key::of(owner);
        create.truncate(BURST);
        let delete = &delete[..delete.len().min(BURST)];
        if create.is_empty() && delete.is_empty() {
            return Ok(());
        }
        let uids = delete
            .iter()
            .map(|pod| pod.metadata.uid.clone().unwrap_or_default());
        self.expectations.expect(&key, create.len(), uids);
        let deleted = join_all(delete.iter().map(|pod| self.delete(owner, pod))).await;
        let created = self.create_all(&key, owner, create).await;
        self.expectations.answered(&key);
        if let Some(error) = deleted.into_iter().find_map(Result::err) {
            return Err(Failure {
                reason: "FailedDelete",
                error: error.into(),
            });
        }
        created
    }

    /// Looks past the informer at pods whose deletion was asked for without an answer.
    ///
    /// # Errors
    /// A request that failed: the owner must try again before it acts.
    pub async fn settle_doubts(&self, owner: &Key) -> Result<(), WriteError> {
        for (pod, uid) in self.expectations.doubts(owner) {
            let found = self
                .writer
                .get_object::<Pod>(&pod.namespace, &pod.name)
                .await;
            let is_deleted = match found {
                Ok(found) => {
                    let meta = &found.metadata;
                    meta.uid.as_deref() != Some(&*uid) || meta.deletion_timestamp.is_some()
                }
                Err(error) if error.is_not_found() => true,
                Err(error) => return Err(error),
            };
            self.expectations.settle_doubt(owner, &uid, is_deleted);
        }
        Ok(())
    }

    /// One, two, four ... at a time: a template that the API server refuses costs one request a
    /// round.
    async fn create_all<O: Resource<DynamicType = ()>>(
        &self,
        key: &Key,
        owner: &O,
        pods: Vec<Pod>,
    ) -> Result<(), Failure> {
        let mut rest = pods.as_slice();
        let mut batch = FIRST_BATCH;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            let created = join_all(now.iter().map(|pod| self.create(owner, pod))).await;
            rest = later;
            let failed: Vec<WriteError> = created.into_iter().filter_map(Result::err).collect();
            if !failed.is_empty() {
                // Neither these nor those not tried will show in the informer.
                self.expectations
                    .creations_over(key, failed.len() + rest.len());
            }
            if let Some(error) = failed.into_iter().next() {
                // Its pods are going anyway.
                return if error.is_namespace_terminating() {
                    Ok(())
                } else {
                    Err(Failure {
                        reason: "FailedCreate",
                        error: error.into(),
                    })
                };
            }
            batch *= 2;
        }
        Ok(())
    }

    /// Creates one pod and says so.
    ///
    /// # Errors
    /// As the request.
    pub async fn create<O: Resource<DynamicType = ()>>(
        &self,
        owner: &O,
        pod: &Pod,
    ) -> Result<Pod, WriteError> {
        let outcome = self.writer.create_object(pod).await;
        match &outcome {
            Ok(created) => {
                let name = created.metadata.name.as_deref().unwrap_or_default();
                self.recorder.event(
                    reference(owner),
                    EventType::Normal,
                    "SuccessfulCreate",
                    format!("Created pod: {name}"),
                );
            }
            Err(error) if error.is_namespace_terminating() => {}
            Err(error) => self.recorder.event(
                reference(owner),
                EventType::Warning,
                "FailedCreate",
                format!("Error creating: {}", error.message()),
            ),
        }
        outcome
    }

    /// Deletes one pod and says so. One that is gone or another by now is left alone.
    ///
    /// # Errors
    /// As the request.
    pub async fn delete<O: Resource<DynamicType = ()>>(
        &self,
        owner: &O,
        pod: &Pod,
    ) -> Result<(), WriteError> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let outcome = self
            .writer
            .delete_object(pod, DeleteParams::default())
            .await;
        let Err(error) = outcome else {
            self.recorder.event(
                reference(owner),
                EventType::Normal,
                "SuccessfulDelete",
                format!("Deleted pod: {name}"),
            );
            return Ok(());
        };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if error.is_refusal() {
            self.expectations.deletion_over(&Key::of(owner), uid);
        } else {
            // Deleting another one instead could be one too many.
            self.expectations.doubt(&Key::of(owner), Key::of(pod), uid);
        }
        if error.is_not_found() || error.is_conflict() {
            return Ok(());
        }
        self.recorder.event(
            reference(owner),
            EventType::Warning,
            "FailedDelete",
            format!("Error deleting: {}", error.message()),
        );
        Err(error)
    }
}

/// A pod of the owner, as the template says, with a generated name.
pub fn pod_from_template<O: Resource<DynamicType = ()>>(
    owner: &O,
    template: Option<&PodTemplateSpec>,
) -> Pod {
    let template = template.cloned().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let name = owner.meta().name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: owner.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
