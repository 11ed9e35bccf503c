//! What every cluster has from its first moment.

use hull_api::{
    ApiError, ObjectExt,
    kinds::{self, SYSTEM_CLASSES},
    meta,
    registry::Kind,
};
use serde_json::{Value, json};

use crate::storage::Storage;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates the namespaces that are missing.
pub(crate) async fn create_namespaces(storage: &Storage) -> Result<(), ApiError> {
    let kind: &Kind = &kinds::NAMESPACES;
    for name in NAMESPACES {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name},
        });
        create_missing(storage, kind, namespace).await?;
    }
    for name in NAMESPACES {
        create_default_account(storage, name).await?;
    }
    Ok(())
}

/// Creates the priority classes of the system that are missing.
pub(crate) async fn create_priority_classes(storage: &Storage) -> Result<(), ApiError> {
    for class in priority_classes() {
        create_missing(storage, &kinds::PRIORITY_CLASSES, class).await?;
    }
    Ok(())
}

fn priority_classes() -> impl Iterator<Item = Value> {
    SYSTEM_CLASSES.into_iter().map(|(name, value)| {
        let stays = match name {
            "system-node-critical" => "must stay on their node",
            _ => "must run in the cluster, on whatever node",
        };
        json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": format!("For pods of the system that {stays}."),
        })
    })
}

/// The account that pods have when they name none: other namespaces get theirs from its
/// controller, these must not wait for it.
async fn create_default_account(storage: &Storage, namespace: &str) -> Result<(), ApiError> {
    let kind: &Kind = &kinds::SERVICE_ACCOUNTS;
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": namespace},
    });
    create_missing(storage, kind, account).await
}

/// Creates an object that belongs to every cluster, unless it is there.
pub(crate) async fn create_missing(
    storage: &Storage,
    kind: &Kind,
    mut object: Value,
) -> Result<(), ApiError> {
    let (namespace, name) = (object.namespace().to_string(), object.name().to_string());
    if storage.get(kind, &namespace, &name).await?.is_some() {
        return Ok(());
    }
    kind.strategy.apply_defaults(&mut object);
    kind.strategy.prepare_create(&mut object);
    let (now, uid) = (jiff::Timestamp::now(), uuid::Uuid::new_v4().to_string());
    meta::fill_on_create(&mut object, now, uid);
    // Another server may have been faster: that is as good.
    storage.create(kind, &mut object).await?;
    tracing::info!(kind = kind.kind, namespace, name, "created");
    Ok(())
}

/// What this server creates would be let in if somebody else did.
#[cfg(test)]
pub(crate) fn assert_valid(kind: &Kind, object: &Value) {
    let mut object = object.clone();
    kind.strategy.apply_defaults(&mut object);
    let mut errors = hull_api::field::Errors::default();
    meta::validate(kind, &object, &mut errors);
    kind.strategy.validate(&object, &mut errors);
    assert!(errors.is_empty(), "{object}: {:?}", errors.into_vec());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_priority_classes_of_the_system_are_valid() {
        for class in priority_classes() {
            assert_valid(&kinds::PRIORITY_CLASSES, &class);
        }
    }
}
