//! What one object counts in a quota.

use serde_json::Value;

use crate::{
    ApiError, Kind, ObjectExt,
    amounts::{Amounts, amounts, pod_amounts},
    kinds,
    quantity::Quantity,
};

/// Core kinds that are also counted under their plain name.
pub(super) const PLAIN_COUNTS: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// Requests that a quota names without prefix, too.
const PLAIN_REQUESTS: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// What the object counts, by the names that quotas use.
pub fn of(kind: &Kind, object: &Value) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used = Amounts::new();
    let counted = match kind.group {
        "" => format!("count/{}", kind.plural),
        group => format!("count/{}.{group}", kind.plural),
    };
    used.insert(counted, one);
    if kind.group.is_empty() && PLAIN_COUNTS.contains(&kind.plural) {
        used.insert(kind.plural.to_string(), one);
    }
    match kind.schema {
        schema if schema == kinds::PODS.schema => of_pod(object, &mut used),
        schema if schema == kinds::PERSISTENT_VOLUME_CLAIMS.schema => of_claim(object, &mut used),
        schema if schema == kinds::SERVICES.schema => of_service(object, &mut used),
        _ => {}
    }
    used
}

/// A pod that has ended uses nothing any more.
fn has_ended(pod: &Value) -> bool {
    matches!(pod.str_at("/status/phase"), "Succeeded" | "Failed")
}

fn of_pod(pod: &Value, used: &mut Amounts) {
    if has_ended(pod) {
        return;
    }
    used.insert("pods".to_string(), Quantity::from_units(1));
    for (name, amount) in pod_amounts(pod, "requests") {
        if PLAIN_REQUESTS.contains(&name.as_str()) || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_amounts(pod, "limits") {
        if PLAIN_REQUESTS.contains(&name.as_str()) {
            used.insert(format!("limits.{name}"), amount);
        }
    }
}

fn of_claim(claim: &Value, used: &mut Amounts) {
    let storage = amounts(claim.pointer("/spec/resources/requests")).remove("storage");
    let class = claim.str_at("/spec/storageClassName");
    let prefix = format!("{class}.storageclass.storage.k8s.io/");
    if !class.is_empty() {
        used.insert(
            format!("{prefix}persistentvolumeclaims"),
            Quantity::from_units(1),
        );
    }
    if let Some(storage) = storage {
        used.insert("requests.storage".to_string(), storage);
        if !class.is_empty() {
            used.insert(format!("{prefix}requests.storage"), storage);
        }
    }
}

fn of_service(service: &Value, used: &mut Amounts) {
    let service_type = service.str_at("/spec/type");
    if service_type == "LoadBalancer" {
        used.insert(
            "services.loadbalancers".to_string(),
            Quantity::from_units(1),
        );
    }
    if matches!(service_type, "NodePort" | "LoadBalancer") {
        let ports = service.list_at("/spec/ports").len();
        let ports = i64::try_from(ports).unwrap_or(i64::MAX);
        used.insert(
            "services.nodeports".to_string(),
            Quantity::from_units(ports),
        );
    }
}

/// Where a quota limits cpu or memory, every container has to name its amount.
pub fn require_specified(
    kind: &Kind,
    pod: &Value,
    quota: &Value,
    hard: &Amounts,
) -> Result<(), ApiError> {
    if kind.schema != kinds::PODS.schema {
        return Ok(());
    }
    let mut missing = Vec::new();
    for name in hard.keys() {
        let (field, resource) = match name.split_once('.') {
            Some(("limits", resource)) => ("limits", resource),
            Some(("requests", resource)) => ("requests", resource),
            _ => ("requests", name.as_str()),
        };
        if !matches!(resource, "cpu" | "memory") {
            continue;
        }
        let without: Vec<&str> = ["/spec/initContainers", "/spec/containers"]
            .into_iter()
            .flat_map(|list| pod.list_at(list))
            .filter(|container| {
                container
                    .map_at(&format!("/resources/{field}"))
                    .is_none_or(|amounts| !amounts.contains_key(resource))
            })
            .map(|container| container.str_at("/name"))
            .collect();
        if !without.is_empty() {
            missing.push(format!("{name} for: {}", without.join(",")));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(ApiError::forbidden(
        kind.resource(),
        pod.name(),
        &format!(
            "failed quota: {}: must specify {}",
            quota.name(),
            missing.join("; ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_counts_under_every_name_until_it_ends() {
        let mut pod = json!({"spec": {"containers": [{"resources": {
            "requests": {"cpu": "100m", "example.com/gpu": "2"}, "limits": {"memory": "1Gi"}}}]}});
        let used = of(&kinds::PODS, &pod);
        let names: Vec<&str> = used.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "count/pods",
                "cpu",
                "limits.memory",
                "pods",
                "requests.cpu",
                "requests.example.com/gpu"
            ]
        );
        pod["status"] = json!({"phase": "Succeeded"});
        let used = of(&kinds::PODS, &pod);
        assert_eq!(used.keys().collect::<Vec<_>>(), ["count/pods"]);
    }

    #[test]
    fn claims_and_services_count_by_class_and_type() {
        let claim = json!({"spec": {"storageClassName": "fast",
            "resources": {"requests": {"storage": "5Gi"}}}});
        let used = of(&kinds::PERSISTENT_VOLUME_CLAIMS, &claim);
        assert_eq!(used["requests.storage"].to_string(), "5Gi");
        assert!(used.contains_key("fast.storageclass.storage.k8s.io/requests.storage"));
        let service = json!({"spec": {"type": "NodePort", "ports": [{}, {}]}});
        assert_eq!(
            of(&kinds::SERVICES, &service)["services.nodeports"].value(),
            2
        );
        assert!(of(&kinds::DEPLOYMENTS, &json!({})).contains_key("count/deployments.apps"));
    }
}
