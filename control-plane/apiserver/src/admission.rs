//! What a new object must fulfil beyond its own rules, and what the cluster adds to it.

use hull_api::{
    ApiError, Kind, ObjectExt,
    kinds::{self, SYSTEM_CLASSES},
    object::{default_text, default_to},
};
use serde_json::{Value, json};

use crate::storage::Storage;

/// The phases of a namespace in which nothing new is accepted.
const TERMINATING: &str = "Terminating";

/// Checks and completes an object before it is created.
pub(crate) async fn admit_create(
    storage: &Storage,
    kind: &Kind,
    object: &mut Value,
) -> Result<(), ApiError> {
    if kind.namespaced {
        require_namespace(storage, kind, object).await?;
    }
    if kind.schema == kinds::PODS.schema {
        admit_pod(storage, object).await?;
    }
    Ok(())
}

async fn require_namespace(storage: &Storage, kind: &Kind, object: &Value) -> Result<(), ApiError> {
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

async fn admit_pod(storage: &Storage, pod: &mut Value) -> Result<(), ApiError> {
    let spec = pod.map_mut(&["spec"]);
    default_text(spec, "serviceAccountName", "default");
    let account = spec.get("serviceAccountName").cloned();
    if let Some(account) = account {
        default_to(spec, "serviceAccount", account);
    }
    resolve_priority(storage, pod).await?;
    apply_runtime_class(storage, pod).await?;
    kinds::pod::default_tolerations(pod);
    Ok(())
}

/// `spec.priority` follows from the class.
async fn resolve_priority(storage: &Storage, pod: &mut Value) -> Result<(), ApiError> {
    let class_name = pod.str_at("/spec/priorityClassName").to_string();
    let refuse =
        |pod: &Value, why: &str| Err(ApiError::forbidden(kinds::PODS.resource(), pod.name(), why));
    let mut policy = "PreemptLowerPriority".to_string();
    let priority = if class_name.is_empty() {
        0
    } else if let Some((_, value)) = SYSTEM_CLASSES.iter().find(|(name, _)| *name == class_name) {
        *value
    } else {
        let Some(class) = storage
            .get(&kinds::PRIORITY_CLASSES, "", &class_name)
            .await?
        else {
            return refuse(
                pod,
                &format!("no PriorityClass with name {class_name} was found"),
            );
        };
        policy = class.object.str_at("/preemptionPolicy").to_string();
        class.object.int_at("/value").unwrap_or(0)
    };
    if pod
        .int_at("/spec/priority")
        .is_some_and(|given| given != priority)
    {
        return refuse(
            pod,
            &format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name",
                pod.int_at("/spec/priority").unwrap_or(0)
            ),
        );
    }
    let spec = pod.map_mut(&["spec"]);
    default_to(spec, "priority", priority);
    default_text(spec, "preemptionPolicy", &policy);
    Ok(())
}

/// Overhead, node selector and tolerations of the RuntimeClass.
async fn apply_runtime_class(storage: &Storage, pod: &mut Value) -> Result<(), ApiError> {
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
