//! Finding or creating the set of the current template.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use serde_json::json;

use super::{
    DeploymentController, Sets, annotations,
    proportions::new_set_size,
    size,
    status::{self, Progress},
    sum, template_hash,
};
use crate::{
    adopt::{controller_reference, is_controlled_by},
    runtime::{ReconcileError, WriteError},
};

fn template_of(set: &ReplicaSet) -> Option<&PodTemplateSpec> {
    set.spec.as_ref()?.template.as_ref()
}

fn created(set: &ReplicaSet) -> (Option<i64>, Option<&String>) {
    let time = set
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0.as_millisecond());
    (time, set.metadata.name.as_ref())
}

/// The oldest set whose template equals the deployment's is the new one.
pub(super) fn sort(deployment: &Deployment, mut claimed: Vec<Arc<ReplicaSet>>) -> Sets {
    claimed.sort_by(|a, b| created(a).cmp(&created(b)));
    let Some(spec) = &deployment.spec else {
        return Sets {
            new: None,
            old: claimed,
        };
    };
    let current = template_hash::without_hash(&spec.template);
    let new = claimed.iter().position(|set| {
        template_of(set).is_some_and(|own| template_hash::without_hash(own) == current)
    });
    let new = new.map(|index| claimed.remove(index));
    Sets { new, old: claimed }
}

impl DeploymentController {
    /// Makes sure that the new set exists and carries the newest revision.
    pub(super) async fn ensure_new_set(
        &self,
        deployment: &mut Arc<Deployment>,
        sets: &mut Sets,
    ) -> Result<(), ReconcileError> {
        let revision = sets
            .old
            .iter()
            .map(|set| annotations::revision(set))
            .max()
            .unwrap_or(0)
            + 1;
        let new = match &sets.new {
            Some(existing) => self.refresh(deployment, existing, revision).await?,
            None => self.create_new_set(deployment, sets, revision).await?,
        };
        let revision = annotations::revision(&new).to_string();
        sets.new = Some(new);
        self.note_revision(deployment, revision).await
    }

    /// Brings annotations and minReadySeconds of the existing new set up to date.
    async fn refresh(
        &self,
        deployment: &mut Arc<Deployment>,
        set: &Arc<ReplicaSet>,
        revision: i64,
    ) -> Result<Arc<ReplicaSet>, ReconcileError> {
        let old = set.metadata.annotations.as_ref();
        let new = annotations::of_new_set(deployment, old, revision);
        let min_ready = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds);
        let own_min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let name = set.metadata.name.clone().unwrap_or_default();
        if status::progressing(deployment).is_none() {
            self.write_progress(deployment, Progress::found(&name))
                .await?;
        }
        if old == Some(&new) && min_ready.unwrap_or(0) == own_min_ready.unwrap_or(0) {
            return Ok(set.clone());
        }
        let patch = json!({
            "metadata": {"annotations": new},
            "spec": {"minReadySeconds": min_ready.unwrap_or(0)},
        });
        self.patch_set(set, patch).await
    }

    async fn create_new_set(
        &self,
        deployment: &mut Arc<Deployment>,
        sets: &Sets,
        revision: i64,
    ) -> Result<Arc<ReplicaSet>, ReconcileError> {
        let set = new_set(deployment, sets, revision);
        let name = set.metadata.name.clone().unwrap_or_default();
        match self.writer.create_object(&set).await {
            Ok(created) => {
                if size(&created) > 0 {
                    self.note_scaling(deployment, &name, 0, size(&created));
                }
                self.write_progress(deployment, Progress::created(&name))
                    .await?;
                Ok(Arc::new(created))
            }
            Err(error) if error.is_already_exists() => {
                self.resolve_collision(deployment, &name).await
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    let progress = Progress::create_failed(&name, &error.message());
                    self.write_progress(deployment, progress).await?;
                }
                Err(error.into())
            }
        }
    }

    /// The name is taken: by our own set that the informer does not show yet, or by another
    /// template with the same hash.
    async fn resolve_collision(
        &self,
        deployment: &mut Arc<Deployment>,
        name: &str,
    ) -> Result<Arc<ReplicaSet>, ReconcileError> {
        let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
        let existing: ReplicaSet = self.writer.get_object(&namespace, name).await?;
        let wanted = deployment
            .spec
            .as_ref()
            .map(|spec| template_hash::without_hash(&spec.template));
        let own = template_of(&existing).map(template_hash::without_hash);
        if is_controlled_by(&existing, &**deployment) && own == wanted {
            return Ok(Arc::new(existing));
        }
        let status = deployment.status.as_ref();
        let collisions = status
            .and_then(|status| status.collision_count)
            .unwrap_or(0)
            + 1;
        let patch = json!({"status": {"collisionCount": collisions}});
        self.writer
            .patch_object(&**deployment, Some("status"), patch)
            .await?;
        Err(ReconcileError::Waiting(format!(
            "replicaset {namespace}/{name} is another template's; the next name is tried"
        )))
    }

    async fn note_revision(
        &self,
        deployment: &mut Arc<Deployment>,
        revision: String,
    ) -> Result<(), ReconcileError> {
        let noted = deployment.metadata.annotations.as_ref();
        if noted.and_then(|noted| noted.get(annotations::REVISION)) == Some(&revision) {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": {annotations::REVISION: revision}}});
        let patched = self.writer.patch_object(&**deployment, None, patch).await?;
        *deployment = Arc::new(parse(&patched, "deployment")?);
        Ok(())
    }

    /// Patches a set that nobody else changed meanwhile.
    pub(super) async fn patch_set(
        &self,
        set: &ReplicaSet,
        mut patch: serde_json::Value,
    ) -> Result<Arc<ReplicaSet>, ReconcileError> {
        patch["metadata"]["uid"] = json!(set.metadata.uid);
        patch["metadata"]["resourceVersion"] = json!(set.metadata.resource_version);
        let patched = self.writer.patch_object(set, None, patch).await?;
        Ok(Arc::new(parse(&patched, "replicaset")?))
    }
}

pub(super) fn parse<K: serde::de::DeserializeOwned>(
    value: &serde_json::Value,
    what: &str,
) -> Result<K, ReconcileError> {
    K::deserialize(value).map_err(|source| {
        ReconcileError::Write(WriteError::Failed {
            request: format!("read the patched {what}"),
            source: Box::new(source),
        })
    })
}

fn with_hash(labels: Option<&BTreeMap<String, String>>, hash: &str) -> BTreeMap<String, String> {
    let mut labels = labels.cloned().unwrap_or_default();
    labels.insert(template_hash::LABEL.into(), hash.to_owned());
    labels
}

fn new_set(deployment: &Deployment, sets: &Sets, revision: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    let hash = template_hash::hash(&spec.template, collisions);
    let mut template = spec.template;
    let mut meta = template.metadata.unwrap_or_default();
    let labels = with_hash(meta.labels.as_ref(), &hash);
    meta.labels = Some(labels.clone());
    template.metadata = Some(meta);
    let selector = LabelSelector {
        match_labels: Some(with_hash(spec.selector.match_labels.as_ref(), &hash)),
        match_expressions: spec.selector.match_expressions,
    };
    let mut notes = annotations::of_new_set(deployment, None, revision);
    for (name, value) in annotations::sizes(deployment) {
        notes.insert(name.into(), value);
    }
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(notes),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(new_set_size(deployment, 0, sum(sets.old.iter(), size))),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
