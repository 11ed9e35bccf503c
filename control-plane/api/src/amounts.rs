//! Amounts of resources that objects ask for.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{ObjectExt, quantity::Quantity};

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a resource list; what is no quantity is refused elsewhere.
pub fn amounts(list: Option<&Value>) -> Amounts {
    list.and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?)))
        .collect()
}

/// Adds amounts.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = match total.get(name) {
            Some(sum) => sum.plus(amount),
            None => *amount,
        };
        total.insert(name.clone(), sum);
    }
}

/// What a pod asks for (`requests` or `limits`): its containers and sidecars together, or the
/// greediest init container where that is more, and the overhead.
pub fn pod_amounts(pod: &Value, field: &str) -> Amounts {
    let of = |container: &Value| amounts(container.pointer(&format!("/resources/{field}")));
    let mut total = Amounts::new();
    for container in pod.list_at("/spec/containers") {
        add(&mut total, &of(container));
    }
    let mut sidecars = Amounts::new();
    let mut most = Amounts::new();
    for container in pod.list_at("/spec/initContainers") {
        let mut peak = of(container);
        if container.str_at("/restartPolicy") == "Always" {
            add(&mut sidecars, &peak);
            add(&mut total, &peak);
            peak.clone_from(&sidecars);
        } else {
            add(&mut peak, &sidecars);
        }
        raise(&mut most, &peak);
    }
    raise(&mut total, &most);
    let own = amounts(pod.pointer(&format!("/spec/resources/{field}")));
    // What the pod as a whole asks for goes before the sum of its containers.
    total.extend(own);
    let overhead = amounts(pod.pointer("/spec/overhead"));
    for (name, amount) in overhead {
        if field == "requests" || total.contains_key(&name) {
            add(&mut total, &Amounts::from([(name, amount)]));
        }
    }
    total
}

fn raise(total: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        if total.get(name).is_none_or(|sum| sum < amount) {
            total.insert(name.clone(), *amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_count_by_the_greediest_and_sidecars_stay() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let pod = json!({"spec": {
            "containers": [{"resources": cpu("1")}, {"resources": cpu("500m")}],
            "initContainers": [
                {"resources": cpu("200m"), "restartPolicy": "Always"},
                {"resources": cpu("3")}],
            "overhead": {"cpu": "250m"}}});
        let total = pod_amounts(&pod, "requests");
        assert_eq!(total["cpu"].milli_value(), 3450);
        assert!(pod_amounts(&pod, "limits").is_empty());
    }
}
