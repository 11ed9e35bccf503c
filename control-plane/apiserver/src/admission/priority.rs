//! `spec.priority` of a pod.

use hull_api::{
    ApiError, ObjectExt,
    kinds::{self, SYSTEM_CLASSES},
    object::{default_text, default_to},
};
use serde_json::Value;

use crate::storage::Storage;

/// `spec.priority` follows from the class.
pub(super) async fn resolve_priority(storage: &Storage, pod: &mut Value) -> Result<(), ApiError> {
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
