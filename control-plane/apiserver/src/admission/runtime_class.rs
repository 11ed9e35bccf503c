//! What a RuntimeClass adds to a pod.

use hull_api::{ApiError, ObjectExt, kinds};
use serde_json::{Value, json};

use crate::storage::Storage;

/// Overhead, node selector and tolerations of the RuntimeClass.
pub(super) async fn apply_runtime_class(
    storage: &Storage,
    pod: &mut Value,
) -> Result<(), ApiError> {
    let refuse =
        |pod: &Value, why: &str| Err(ApiError::forbidden(kinds::PODS.resource(), pod.name(), why));
    let name = pod.str_at("/spec/runtimeClassName").to_string();
    if name.is_empty() {
        if pod
            .map_at("/spec/overhead")
            .is_some_and(|overhead| !overhead.is_empty())
        {
            return refuse(
                pod,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            );
        }
        return Ok(());
    }
    let Some(class) = storage.get(&kinds::RUNTIME_CLASSES, "", &name).await? else {
        return refuse(
            pod,
            &format!("pod rejected: RuntimeClass {name:?} not found"),
        );
    };
    if let Some(overhead) = class.object.pointer("/overhead/podFixed") {
        match pod.pointer("/spec/overhead") {
            Some(given) if given != overhead => {
                return refuse(
                    pod,
                    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
                );
            }
            _ => pod.set_at(&["spec", "overhead"], overhead.clone()),
        }
    }
    for (key, value) in class
        .object
        .map_at("/scheduling/nodeSelector")
        .into_iter()
        .flatten()
    {
        let selector = pod.map_mut(&["spec", "nodeSelector"]);
        if selector.get(key).is_some_and(|given| given != value) {
            return refuse(
                pod,
                &format!(
                    "conflict: cannot overwrite nodeSelector {key} of the pod with that of RuntimeClass {name:?}"
                ),
            );
        }
        selector.insert(key.clone(), value.clone());
    }
    let mut tolerations = pod.list_at("/spec/tolerations").to_vec();
    for toleration in class.object.list_at("/scheduling/tolerations") {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if !tolerations.is_empty() {
        pod.set_at(&["spec", "tolerations"], json!(tolerations));
    }
    Ok(())
}
