//! Resources of the pod as a whole (`spec.resources`) beside those of its containers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::validate::{HUGE_PAGES, amount, may_be_overcommitted, validate_requirements};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    quantity::Quantity,
};

const SUPPORTED: [&str; 3] = ["cpu", HUGE_PAGES, "memory"];

type Amounts = BTreeMap<String, Quantity>;

fn is_supported(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE_PAGES)
}

/// Requests that are not given: what the containers ask for together, else the limit.
pub(super) fn default_requests(spec: &mut Map<String, Value>) {
    let limits = spec.get("resources").and_then(|whole| whole.get("limits"));
    let Some(limits) = limits.and_then(Value::as_object).filter(|l| !l.is_empty()) else {
        return;
    };
    let limits = limits.clone();
    let together = together(&Value::Object(spec.clone()), "requests");
    let Some(whole) = spec.get_mut("resources").and_then(Value::as_object_mut) else {
        return;
    };
    let requests = whole.entry("requests").or_insert(json!({}));
    let Some(requests) = requests.as_object_mut() else {
        return;
    };
    for (name, amount) in together {
        if is_supported(&name) && may_be_overcommitted(&name) && !requests.contains_key(&name) {
            requests.insert(name, amount.to_string().into());
        }
    }
    for (name, limit) in limits {
        if is_supported(&name) && !requests.contains_key(&name) {
            requests.insert(name, limit);
        }
    }
}

/// Checks `spec.resources`.
pub(super) fn validate(spec: &Value, path: &Path, errors: &mut Errors) {
    let Some(whole) = spec.get("resources").filter(|whole| !whole.is_null()) else {
        return;
    };
    if spec.str_at("/os/name") == "windows" {
        return errors.forbidden(path, "may not be set for a windows pod");
    }
    let known = |name: &str, path: &Path, errors: &mut Errors| {
        if !is_supported(name) {
            errors.not_supported(path, name, &SUPPORTED);
        }
    };
    validate_requirements(whole, known, path, errors);
    if !whole.list_at("/claims").is_empty() {
        let why = "claims may not be set for Resources at pod-level";
        errors.forbidden(&path.child("claims"), why);
    }
    let given = |list: &str, name: &str| whole.map_at(list)?.get(name).and_then(amount);
    for (name, sum) in together(spec, "requests") {
        if let Some(request) = given("/requests", &name).filter(|request| sum > *request) {
            let why =
                format!("must be greater than or equal to aggregate container requests of {sum}");
            let path = path.child("requests").key(&name);
            errors.invalid(&path, request.to_string(), why);
        }
    }
    for (name, sum) in together(spec, "limits") {
        let limit = given("/limits", &name).filter(|_| name.starts_with(HUGE_PAGES));
        if let Some(limit) = limit.filter(|limit| sum > *limit) {
            let why =
                format!("must be greater than or equal to aggregate container limits of {sum}");
            let path = path.child("limits").key(&name);
            errors.invalid(&path, limit.to_string(), why);
        }
    }
    for (index, container) in spec.list_at("/containers").iter().enumerate() {
        for (name, limit) in amounts(container, "limits") {
            if let Some(most) = given("/limits", &name).filter(|most| limit > *most) {
                let path = path.child("containers").index(index).key(&name);
                let why = format!("must be less than or equal to pod limits of {most}");
                errors.invalid(&path.child("limits"), limit.to_string(), why);
            }
        }
    }
}

/// What a container's `requests` or `limits` are.
fn amounts(container: &Value, list: &str) -> Amounts {
    let list = container.map_at(&format!("/resources/{list}"));
    list.into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), amount(value)?)))
        .collect()
}

fn add(total: &mut Amounts, amounts: &Amounts) {
    for (name, amount) in amounts {
        let sum = total.get(name).map_or(*amount, |sum| sum.plus(amount));
        total.insert(name.clone(), sum);
    }
}

fn raise_to(total: &mut Amounts, name: &str, amount: Quantity) {
    let largest = total.get(name).map_or(amount, |sum| amount.max(*sum));
    total.insert(name.to_string(), largest);
}

/// What the containers have at the pod's largest moment: those that run together with the
/// restartable init containers, or one init container with the restartable ones before it. Each
/// amount is looked at once, however many containers and resources a pod names.
fn together(spec: &Value, list: &str) -> Amounts {
    let mut total = Amounts::new();
    for container in spec.list_at("/containers") {
        add(&mut total, &amounts(container, list));
    }
    let (mut restartable, mut largest) = (Amounts::new(), Amounts::new());
    for container in spec.list_at("/initContainers") {
        let own = amounts(container, list);
        let stays = container.str_at("/restartPolicy") == "Always";
        for (name, amount) in &own {
            let with = restartable.get(name);
            raise_to(
                &mut largest,
                name,
                with.map_or(*amount, |with| with.plus(amount)),
            );
        }
        if stays {
            add(&mut total, &own);
            add(&mut restartable, &own);
        }
    }
    for (name, amount) in largest {
        raise_to(&mut total, &name, amount);
    }
    total
}
