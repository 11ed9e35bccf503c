//! What every cluster has from its first moment.

use hull_api::{ApiError, ObjectExt, kinds, meta, registry::Kind};
use serde_json::json;

use crate::storage::Storage;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates the namespaces that are missing.
pub(crate) async fn create_namespaces(storage: &Storage) -> Result<(), ApiError> {
    let kind: &Kind = &kinds::NAMESPACES;
    for name in NAMESPACES {
        if storage.get(kind, "", name).await?.is_some() {
            continue;
        }
        let mut namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name},
        });
        kind.strategy.apply_defaults(&mut namespace);
        kind.strategy.prepare_create(&mut namespace);
        meta::fill_on_create(
            &mut namespace,
            jiff::Timestamp::now(),
            uuid::Uuid::new_v4().to_string(),
        );
        // Another server may have been faster: that is as good.
        storage.create(kind, &mut namespace).await?;
        tracing::info!(namespace = namespace.name(), "created");
    }
    for name in NAMESPACES {
        create_default_account(storage, name).await?;
    }
    Ok(())
}

/// The account that pods have when they name none: other namespaces get theirs from its
/// controller, these must not wait for it.
async fn create_default_account(storage: &Storage, namespace: &str) -> Result<(), ApiError> {
    let kind: &Kind = &kinds::SERVICE_ACCOUNTS;
    if storage.get(kind, namespace, "default").await?.is_some() {
        return Ok(());
    }
    let mut account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": namespace},
    });
    meta::fill_on_create(
        &mut account,
        jiff::Timestamp::now(),
        uuid::Uuid::new_v4().to_string(),
    );
    storage.create(kind, &mut account).await?;
    Ok(())
}
