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
    Ok(())
}
