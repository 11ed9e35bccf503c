//! ControllerRevisions: the templates that a StatefulSet or DaemonSet has had.
//!
//! The newest revision holds the current template. A template that comes back (a rollback) makes
//! its old revision the newest again instead of a double.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, runtime::RawExtension},
};
use kube::{
    Resource,
    api::{DeleteParams, ObjectMeta},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    adopt::{self, controller_reference, is_controlled_by, parse_selector},
    deployment::template_hash,
    pod_gc::ignore_gone,
    runtime::{Informer, Key, ReconcileError, WriteError, Writer},
};

/// The label by which revisions and the pods made from them are told apart.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// Kubernetes' default of `revisionHistoryLimit`.
pub const DEFAULT_LIMIT: i32 = 10;
/// Names tried before a round gives up.
const MAX_COLLISIONS: i32 = 16;

/// An owner's revisions, oldest first.
pub(crate) struct History {
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// That of the current template.
    pub update: Arc<ControllerRevision>,
    /// `status.collisionCount`.
    pub collisions: Option<i32>,
}

/// What the history needs to know of its owner.
pub(crate) struct Subject<'a, O> {
    pub owner: &'a O,
    pub selector: &'a LabelSelector,
    pub template: &'a PodTemplateSpec,
    pub collisions: Option<i32>,
}

pub(crate) fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// The hash in the revision's label.
pub(crate) fn hash(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(REVISION_LABEL))
        .map_or("", String::as_str)
}

/// What the revision holds: a patch that puts the template back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    if let Value::Object(fields) = &mut template {
        fields.insert("$patch".into(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template in the revision.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let data = &revision.data.as_ref()?.0;
    serde_json::from_value(data["spec"]["template"].clone()).ok()
}

fn holds(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).as_ref() == Some(template)
}

impl<O> Subject<'_, O>
where
    O: Resource<DynamicType = ()> + DeserializeOwned,
{
    /// Claims the revisions and makes sure that the newest one holds the current template.
    ///
    /// # Errors
    /// As the requests.
    pub(crate) async fn history(
        &self,
        writer: &dyn Writer,
        informer: &Informer<ControllerRevision>,
    ) -> Result<History, ReconcileError> {
        let key = Key::of(self.owner).to_string();
        let selector = parse_selector(self.selector, &key)?;
        let mut revisions = adopt::claim(writer, self.owner, &selector, informer).await?;
        revisions.sort_by_key(|revision| (revision.revision, name(revision).to_owned()));
        let newest = revisions.last().map_or(0, |revision| revision.revision);
        // The newest of those that are equal.
        let known = revisions.iter().rposition(|own| holds(own, self.template));
        let mut collisions = self.collisions;
        let update = match known {
            Some(index) if index + 1 == revisions.len() => revisions[index].clone(),
            Some(index) => {
                let old = revisions.remove(index);
                let renumbered = Arc::new(renumber(writer, &old, newest + 1).await?);
                revisions.push(renumbered.clone());
                renumbered
            }
            None => {
                let created = self.create(writer, newest + 1, &mut collisions).await?;
                let created = Arc::new(created);
                revisions.push(created.clone());
                created
            }
        };
        Ok(History {
            revisions,
            update,
            collisions,
        })
    }

    fn revision(&self, number: i64, collisions: Option<i32>) -> ControllerRevision {
        let hash = template_hash::hash(self.template, collisions);
        let owner = self.owner.meta();
        let mut labels: BTreeMap<String, String> = self
            .template
            .metadata
            .as_ref()
            .and_then(|meta| meta.labels.clone())
            .unwrap_or_default();
        labels.insert(REVISION_LABEL.into(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}-{hash}",
                    owner.name.as_deref().unwrap_or_default()
                )),
                namespace: owner.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![controller_reference(self.owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data(self.template))),
            revision: number,
        }
    }

    /// A name that another template's revision has gets another hash.
    async fn create(
        &self,
        writer: &dyn Writer,
        number: i64,
        collisions: &mut Option<i32>,
    ) -> Result<ControllerRevision, WriteError> {
        let mut tries = 0;
        loop {
            let revision = self.revision(number, *collisions);
            let error = match writer.create_object(&revision).await {
                Ok(created) => return Ok(created),
                Err(error) if error.is_already_exists() && tries < MAX_COLLISIONS => error,
                Err(error) => return Err(error),
            };
            let namespace = revision.metadata.namespace.as_deref().unwrap_or_default();
            let found: ControllerRevision = writer.get_object(namespace, name(&revision)).await?;
            if holds(&found, self.template) && is_controlled_by(&found, self.owner) {
                return Ok(found);
            }
            tracing::debug!(%error, "revision name taken; another hash is tried");
            *collisions = Some(collisions.unwrap_or(0).saturating_add(1));
            tries += 1;
        }
    }
}

async fn renumber(
    writer: &dyn Writer,
    revision: &ControllerRevision,
    number: i64,
) -> Result<ControllerRevision, WriteError> {
    let patch = json!({
        "metadata": {
            "uid": revision.metadata.uid, "resourceVersion": revision.metadata.resource_version
        },
        "revision": number,
    });
    let patched = writer.patch_object(revision, None, patch).await?;
    crate::runtime::writer::object(patched)
}

impl History {
    /// Deletes the oldest revisions beyond the limit that nothing uses.
    ///
    /// # Errors
    /// As the requests.
    pub(crate) async fn truncate(
        &self,
        writer: &dyn Writer,
        limit: Option<i32>,
        is_live: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), WriteError> {
        let dead: Vec<_> = self
            .revisions
            .iter()
            .filter(|own| own.metadata.uid != self.update.metadata.uid && !is_live(own))
            .collect();
        let limit = usize::try_from(limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(0);
        for revision in dead.iter().take(dead.len().saturating_sub(limit)) {
            let deleted = writer.delete_object(&***revision, DeleteParams::default());
            ignore_gone(deleted.await)?;
        }
        Ok(())
    }
}
