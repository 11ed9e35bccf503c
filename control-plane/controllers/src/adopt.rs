//! Which objects belong to an owner: those it controls and its selector still wants, plus
//! matching orphans, which it adopts; those that no longer match it releases.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::{
    Resource,
    core::{Selector, SelectorExt},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::runtime::{Informer, ReconcileError, WriteError, Writer, informer::controller_of};

/// The selector in the form that matches labels.
pub fn parse_selector(selector: &LabelSelector, of: &str) -> Result<Selector, ReconcileError> {
    Selector::try_from(selector.clone()).map_err(|error| ReconcileError::Invalid {
        object: of.to_owned(),
        problem: format!("its selector is not valid: {error}"),
    })
}

/// Whether the labels match.
pub fn selects<K: Resource>(selector: &Selector, object: &K) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selector.matches(object.meta().labels.as_ref().unwrap_or(&NONE))
}

/// The reference by which `owner` controls.
pub fn controller_reference<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether `object` is controlled by exactly this owner.
pub fn is_controlled_by<K: Resource, O: Resource>(object: &K, owner: &O) -> bool {
    controller_of(object).is_some_and(|reference| Some(&reference.uid) == owner.meta().uid.as_ref())
}

/// All of the owner's objects, after adopting and releasing.
///
/// # Errors
/// A request other than one for an object that has meanwhile gone or changed owner.
pub async fn claim<O, K>(
    writer: &dyn Writer,
    owner: &O,
    selector: &Selector,
    objects: &Informer<K>,
) -> Result<Vec<Arc<K>>, WriteError>
where
    O: Resource<DynamicType = ()> + DeserializeOwned,
    K: Resource<DynamicType = ()> + DeserializeOwned + Debug + Send + Sync + 'static,
{
    claim_if(writer, owner, objects, |object| selects(selector, object)).await
}

/// The same with another test than a selector.
///
/// # Errors
/// As [`claim`].
pub async fn claim_if<O, K>(
    writer: &dyn Writer,
    owner: &O,
    objects: &Informer<K>,
    fits: impl Fn(&K) -> bool,
) -> Result<Vec<Arc<K>>, WriteError>
where
    O: Resource<DynamicType = ()> + DeserializeOwned,
    K: Resource<DynamicType = ()> + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let uid = owner.meta().uid.clone().unwrap_or_default();
    let namespace = owner.meta().namespace.clone().unwrap_or_default();
    let owner_lives = owner.meta().deletion_timestamp.is_none();
    let mut claimed = Vec::new();
    for object in objects.controlled_by(&uid) {
        if fits(&object) {
            claimed.push(object);
        } else if owner_lives {
            ignore_lost(release(writer, &*object, &uid).await)?;
        }
    }
    if !owner_lives {
        return Ok(claimed);
    }
    let mut confirmed = false;
    for object in objects.orphans_in(&namespace) {
        if object.meta().deletion_timestamp.is_some() || !fits(&object) {
            continue;
        }
        if !confirmed {
            confirm_alive(writer, owner).await?;
            confirmed = true;
        }
        if ignore_lost(adopt(writer, owner, &*object).await)? {
            claimed.push(object);
        }
    }
    Ok(claimed)
}

/// The owner in the informer may be one that was deleted and created anew since.
async fn confirm_alive<O>(writer: &dyn Writer, owner: &O) -> Result<(), WriteError>
where
    O: Resource<DynamicType = ()> + DeserializeOwned,
{
    let meta = owner.meta();
    let (namespace, name) = (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    let fresh: O = writer.get_object(&namespace, &name).await?;
    let same = fresh.meta().uid == meta.uid && fresh.meta().deletion_timestamp.is_none();
    if same {
        return Ok(());
    }
    Err(WriteError::Refused {
        request: format!("adopt for {namespace}/{name}"),
        code: 409,
        reason: "Conflict".into(),
        message: format!("original {} {namespace}/{name} is gone", O::kind(&())),
    })
}

fn with_references<K: Resource>(object: &K, references: Vec<OwnerReference>) -> serde_json::Value {
    let meta = object.meta();
    json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "ownerReferences": references,
    }})
}

async fn adopt<O, K>(writer: &dyn Writer, owner: &O, object: &K) -> Result<(), WriteError>
where
    O: Resource<DynamicType = ()>,
    K: Resource<DynamicType = ()>,
{
    let mut references = object.meta().owner_references.clone().unwrap_or_default();
    references.push(controller_reference(owner));
    writer
        .patch_object(object, None, with_references(object, references))
        .await?;
    Ok(())
}

async fn release<K>(writer: &dyn Writer, object: &K, owner_uid: &str) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()>,
{
    let mut references = object.meta().owner_references.clone().unwrap_or_default();
    references.retain(|reference| reference.uid != owner_uid);
    writer
        .patch_object(object, None, with_references(object, references))
        .await?;
    Ok(())
}

/// Somebody else has it now, or it is gone: not ours, and no error. True when it was written.
fn ignore_lost(outcome: Result<(), WriteError>) -> Result<bool, WriteError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}
