//! Nothing new in a namespace that is not there, or that is being terminated; and namespaces that
//! stay.

use hull_api::{ApiError, Kind, ObjectExt, kinds};
use serde_json::Value;

use crate::storage::Storage;

/// The phase of a namespace in which nothing new is accepted.
const TERMINATING: &str = "Terminating";
/// Namespaces that a cluster cannot do without.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses the end of a namespace that the cluster needs.
pub(super) fn check_delete(kind: &Kind, object: &Value) -> Result<(), ApiError> {
    if kind.storage != kinds::NAMESPACES.storage || !IMMORTAL.contains(&object.name()) {
        return Ok(());
    }
    Err(ApiError::forbidden(
        kind.resource(),
        object.name(),
        "this namespace may not be deleted",
    ))
}

pub(super) async fn require_namespace(
    storage: &Storage,
    kind: &Kind,
    object: &Value,
) -> Result<(), ApiError> {
    let name = object.namespace();
    let Some(namespace) = storage.get(&kinds::NAMESPACES, "", name).await? else {
        return Err(ApiError::not_found(kinds::NAMESPACES.resource(), name));
    };
    let terminating =
        namespace.object.is_deleting() || namespace.object.str_at("/status/phase") == TERMINATING;
    if !terminating {
        return Ok(());
    }
    let mut error = ApiError::forbidden(
        kind.resource(),
        object.name(),
        &format!("unable to create new content in namespace {name} because it is being terminated"),
    );
    error.details.causes.push(hull_api::status::Cause {
        reason: "NamespaceTerminating".to_string(),
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".to_string(),
    });
    Err(error)
}
