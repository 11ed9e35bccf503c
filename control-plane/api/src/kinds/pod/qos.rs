//! The quality-of-service class, from requests and limits of CPU and memory.

use serde_json::Value;

use crate::{ObjectExt, quantity::Quantity};

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    let containers = pod
        .list_at("/spec/containers")
        .iter()
        .chain(pod.list_at("/spec/initContainers"));
    for container in containers {
        for resource in ["cpu", "memory"] {
            let amount = |list: &str| {
                container
                    .str_at(&format!("/resources/{list}/{resource}"))
                    .parse::<Quantity>()
                    .ok()
                    .filter(|quantity| quantity.value() > 0)
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({"limits": full, "requests": full}), "Guaranteed"),
            (json!({"requests": full}), "Burstable"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
        ] {
            let pod = json!({"spec": {"containers": [{"resources": resources}]}});
            assert_eq!(qos_class(&pod), class, "{resources}");
        }
    }
}
