//! The levels and schemas that every cluster has from its first moment. What an administrator
//! changed stays.

use hull_api::{
    ApiError, Kind, ObjectExt,
    kinds::{FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS},
};
use serde_json::{Value, json};

use crate::{bootstrap::create_missing, storage::Storage};

const CONFIGURATION: &str = include_str!("bootstrap.yaml");

/// Creates what is missing.
pub(crate) async fn create_configuration(storage: &Storage) -> Result<(), ApiError> {
    for (kind, object) in objects().map_err(ApiError::internal)? {
        create_missing(storage, kind, object).await?;
    }
    Ok(())
}

fn objects() -> Result<Vec<(&'static Kind, Value)>, serde_saphyr::Error> {
    let document: Value = serde_saphyr::from_str(CONFIGURATION)?;
    let levels = document.list_at("/levels").iter();
    let schemas = document.list_at("/schemas").iter();
    let levels = levels.map(|item| {
        let kind = &PRIORITY_LEVEL_CONFIGURATIONS;
        (kind, object(kind, item, level(item)))
    });
    let schemas = schemas.map(|item| (&FLOW_SCHEMAS, object(&FLOW_SCHEMAS, item, schema(item))));
    Ok(levels.chain(schemas).collect())
}

fn object(kind: &Kind, item: &Value, spec: Value) -> Value {
    json!({
        "apiVersion": kind.group_version(),
        "kind": kind.kind,
        "metadata": {
            "name": item.str_at("/name"),
            "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"},
        },
        "spec": spec,
    })
}

fn level(item: &Value) -> Value {
    let Some(shares) = item.int_at("/shares") else {
        return json!({"type": "Exempt", "exempt": {}});
    };
    let response = match item.list_at("/queuing") {
        [queues, hand, length] => json!({"type": "Queue", "queuing":
            {"queues": queues, "handSize": hand, "queueLengthLimit": length}}),
        _ => json!({"type": "Reject"}),
    };
    json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares,
        "lendablePercent": item.int_at("/lendable").unwrap_or(0),
        "limitResponse": response,
    }})
}

fn words(text: &str) -> Vec<&str> {
    let all = text.split_whitespace();
    all.map(|word| if word == "core" { "" } else { word })
        .collect()
}

fn schema(item: &Value) -> Value {
    let mut subjects: Vec<Value> = Vec::new();
    for user in words(item.str_at("/users")) {
        subjects.push(json!({"kind": "User", "user": {"name": user}}));
    }
    for group in words(item.str_at("/groups")) {
        subjects.push(json!({"kind": "Group", "group": {"name": group}}));
    }
    for account in words(item.str_at("/accounts")) {
        let (namespace, name) = account.split_once('/').unwrap_or(("", account));
        subjects.push(json!({"kind": "ServiceAccount",
            "serviceAccount": {"namespace": namespace, "name": name}}));
    }
    let resources = |verbs: &str, groups: &str, resources: &str| {
        json!([{"verbs": words(verbs), "apiGroups": words(groups), "resources": words(resources),
            "clusterScope": true, "namespaces": ["*"]}])
    };
    let mut rule = json!({ "subjects": subjects });
    if item.bool_at("/all") {
        rule["resourceRules"] = resources("*", "*", "*");
        rule["nonResourceRules"] = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
    }
    if let [verbs, groups, names] = item.list_at("/resources") {
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        rule["resourceRules"] = resources(&text(verbs), &text(groups), &text(names));
    }
    if !item.str_at("/paths").is_empty() {
        let urls = words(item.str_at("/paths"));
        rule["nonResourceRules"] = json!([{"verbs": ["get"], "nonResourceURLs": urls}]);
    }
    let mut spec = json!({
        "matchingPrecedence": item.int_at("/precedence"),
        "priorityLevelConfiguration": {"name": item.str_at("/level")},
        "rules": [rule],
    });
    if !item.str_at("/by").is_empty() {
        spec["distinguisherMethod"] = json!({"type": item.str_at("/by")});
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::assert_valid;

    #[test]
    fn the_configuration_is_valid_and_every_schema_leads_to_a_level() {
        let objects = objects().unwrap();
        for (kind, object) in &objects {
            assert_valid(kind, object);
            let level = object.str_at("/spec/priorityLevelConfiguration/name");
            let there = |name: &str| {
                objects.iter().any(|(kind, one)| {
                    kind.kind == "PriorityLevelConfiguration" && one.name() == name
                })
            };
            assert!(level.is_empty() || there(level), "{level}");
        }
        assert_eq!(objects.len(), 8 + 13);
    }
}
