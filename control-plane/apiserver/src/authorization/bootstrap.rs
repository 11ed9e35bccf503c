//! The roles and bindings that every cluster has, made and mended at every start.
//!
//! What an administrator added stays; what is missing comes back, unless the object says
//! `rbac.authorization.kubernetes.io/autoupdate: "false"`.

use hull_api::{
    ApiError, Kind, ObjectExt,
    kinds::rbac::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, GROUP, ROLE_BINDINGS, ROLES},
    meta,
    selector::LabelSelector,
};
use serde_json::{Map, Value, json};

use super::{Rule, rules::uncovered};
use crate::{
    limits,
    storage::{Outcome, Storage},
};

const POLICY: &str = include_str!("bootstrap.yaml");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: &str = "kubernetes.io/bootstrapping";

/// Makes what is missing.
pub(crate) async fn reconcile(storage: &Storage) -> Result<(), ApiError> {
    for (kind, object) in policy().map_err(ApiError::internal)? {
        reconcile_one(storage, kind, object).await?;
    }
    Ok(())
}

/// Every object of the policy.
fn policy() -> Result<Vec<(&'static Kind, Value)>, serde_saphyr::Error> {
    let document: Value = serde_saphyr::from_str(POLICY)?;
    let mut objects = Vec::new();
    let mut roles: Vec<Value> = document
        .list_at("/clusterRoles")
        .iter()
        .map(|item| role(item, "ClusterRole"))
        .collect();
    aggregate(&mut roles);
    objects.extend(roles.into_iter().map(|role| (&CLUSTER_ROLES, role)));
    for item in document.list_at("/clusterRoleBindings") {
        objects.push((&CLUSTER_ROLE_BINDINGS, binding(item, "ClusterRoleBinding")));
    }
    for item in document.list_at("/roles") {
        objects.push((&ROLES, role(item, "Role")));
    }
    for item in document.list_at("/roleBindings") {
        objects.push((&ROLE_BINDINGS, binding(item, "RoleBinding")));
    }
    Ok(objects)
}

fn skeleton(item: &Value, kind: &str) -> Value {
    let mut labels: Map<String, Value> = item.map_at("/labels").cloned().unwrap_or_default();
    labels.insert(BOOTSTRAPPING.into(), json!("rbac-defaults"));
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": item.str_at("/name"),
            "labels": labels,
            "annotations": {AUTOUPDATE: "true"},
        },
    });
    if !item.str_at("/namespace").is_empty() {
        let namespace = Value::from(item.str_at("/namespace"));
        object.set_at(&["metadata", "namespace"], namespace);
    }
    object
}

/// A rule is written `[verbs, groups, resources]`, `[..., names]`, or `{paths: verbs}`.
fn role(item: &Value, kind: &str) -> Value {
    let list = |value: Option<&Value>| -> Vec<String> {
        value
            .and_then(Value::as_str)
            .unwrap_or("")
            .split_whitespace()
            .map(|word| if word == "core" { "" } else { word }.to_string())
            .collect()
    };
    let rules: Vec<Value> = item
        .list_at("/rules")
        .iter()
        .map(|rule| {
            let parsed = match rule {
                Value::Object(map) => Rule {
                    verbs: list(map.get("verbs")),
                    paths: list(map.get("paths")),
                    ..Rule::default()
                },
                rule => Rule {
                    verbs: list(rule.get(0)),
                    groups: list(rule.get(1)),
                    resources: list(rule.get(2)),
                    names: list(rule.get(3)),
                    paths: Vec::new(),
                },
            };
            parsed.to_value()
        })
        .collect();
    let mut object = skeleton(item, kind);
    object["rules"] = Value::Array(rules);
    if !item.str_at("/aggregate").is_empty() {
        let label = format!("{GROUP}/{}", item.str_at("/aggregate"));
        object["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    }
    object
}

fn binding(item: &Value, kind: &str) -> Value {
    let mut object = skeleton(item, kind);
    let role_kind = match item.str_at("/role") {
        "" => "ClusterRole",
        _ => "Role",
    };
    let role = match item.str_at("/role") {
        "" => match item.str_at("/clusterRole") {
            "" => item.str_at("/name"),
            name => name,
        },
        name => name,
    };
    object["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
    let mut subjects = Vec::new();
    for (key, kind) in [("/groups", "Group"), ("/users", "User")] {
        for name in item.list_at(key) {
            subjects.push(json!({"apiGroup": GROUP, "kind": kind, "name": name}));
        }
    }
    for name in item.list_at("/accounts") {
        subjects.push(json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": name}));
    }
    object["subjects"] = Value::Array(subjects);
    object
}

/// Fills roles with an aggregation rule, so that they work before the controller runs.
fn aggregate(roles: &mut [Value]) {
    // Three levels: view is in edit, edit is in admin.
    for _ in 0..3 {
        for index in 0..roles.len() {
            let Some(role) = roles.get(index) else {
                continue;
            };
            let selectors: Vec<LabelSelector> = role
                .list_at("/aggregationRule/clusterRoleSelectors")
                .iter()
                .filter_map(|selector| LabelSelector::from_object(selector).ok())
                .collect();
            if selectors.is_empty() {
                continue;
            }
            let mut rules: Vec<Value> = Vec::new();
            for other in roles.iter() {
                if selectors
                    .iter()
                    .any(|selector| selector.matches(other.labels()))
                {
                    for rule in other.list_at("/rules") {
                        if !rules.contains(rule) {
                            rules.push(rule.clone());
                        }
                    }
                }
            }
            if let Some(role) = roles.get_mut(index) {
                role["rules"] = Value::Array(rules);
            }
        }
    }
}

async fn reconcile_one(
    storage: &Storage,
    kind: &'static Kind,
    wanted: Value,
) -> Result<(), ApiError> {
    for _ in 0..limits::UPDATE_RETRIES {
        let found = storage.get(kind, wanted.namespace(), wanted.name()).await?;
        let outcome = match found {
            None => {
                let mut object = wanted.clone();
                kind.strategy.apply_defaults(&mut object);
                meta::fill_on_create(
                    &mut object,
                    jiff::Timestamp::now(),
                    uuid::Uuid::new_v4().to_string(),
                );
                storage.create(kind, &mut object).await?
            }
            Some(existing) => {
                let updates = existing
                    .object
                    .map_at("/metadata/annotations")
                    .and_then(|annotations| annotations.get(AUTOUPDATE))
                    .is_some_and(|value| value == "true");
                let mut mended = existing.object.clone();
                if !updates || !mend(&mut mended, &wanted) {
                    return Ok(());
                }
                tracing::info!(kind = kind.kind, name = wanted.name(), "mended");
                storage
                    .replace(kind, &mut mended, existing.revision)
                    .await?
            }
        };
        if let Outcome::Done(_) = outcome {
            return Ok(());
        }
    }
    Err(ApiError::modified(kind.resource(), wanted.name()))
}

/// Adds what is missing; true when something was.
fn mend(object: &mut Value, wanted: &Value) -> bool {
    let before = object.clone();
    for field in ["labels", "annotations"] {
        let Some(Value::Object(entries)) = wanted.pointer(&format!("/metadata/{field}")) else {
            continue;
        };
        for (key, value) in entries {
            object.set_at(&["metadata", field, key], value.clone());
        }
    }
    if let Some(aggregation) = wanted.get("aggregationRule") {
        object["aggregationRule"] = aggregation.clone();
    }
    if wanted.get("rules").is_some() {
        let owned = Rule::of_role(object);
        let missing = uncovered(&owned, &Rule::of_role(wanted));
        if !missing.is_empty() {
            let mut rules = object.list_at("/rules").to_vec();
            rules.extend(missing.iter().map(Rule::to_value));
            object["rules"] = Value::Array(rules);
        }
    }
    if let Some(role) = wanted.get("roleRef") {
        object["roleRef"] = role.clone();
        let mut subjects = object.list_at("/subjects").to_vec();
        for subject in wanted.list_at("/subjects") {
            if !subjects.contains(subject) {
                subjects.push(subject.clone());
            }
        }
        object["subjects"] = Value::Array(subjects);
    }
    *object != before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::assert_valid;

    #[test]
    fn the_policy_is_valid_and_complete() {
        let objects = policy().unwrap();
        for (kind, object) in &objects {
            assert_valid(kind, object);
        }
        let names: Vec<&str> = objects.iter().map(|(_, object)| object.name()).collect();
        for name in [
            "cluster-admin",
            "admin",
            "edit",
            "view",
            "system:node",
            "system:discovery",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        // Every binding of the cluster leads to a role that is there.
        for (kind, object) in &objects {
            if object.get("roleRef").is_some() && kind.plural.contains("bindings") {
                let role = object.str_at("/roleRef/name");
                assert!(names.contains(&role), "{role}");
            }
        }
    }

    #[test]
    fn view_reads_no_secrets_and_admin_holds_all_of_edit() {
        let objects = policy().unwrap();
        let rules = |name: &str| {
            let found = objects
                .iter()
                .find(|(kind, object)| kind.kind == "ClusterRole" && object.name() == name);
            Rule::of_role(&found.unwrap().1)
        };
        assert!(uncovered(&rules("admin"), &rules("edit")).is_empty());
        assert!(uncovered(&rules("edit"), &rules("view")).is_empty());
        let secrets = super::super::Attributes {
            verb: "get",
            resource: "secrets",
            ..Default::default()
        };
        assert!(!rules("view").iter().any(|rule| rule.allows(&secrets)));
        assert!(rules("edit").iter().any(|rule| rule.allows(&secrets)));
    }

    #[test]
    fn mending_adds_and_never_takes() {
        let wanted = json!({"metadata": {"name": "r"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        let mut object = json!({"metadata": {"name": "r"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}]});
        assert!(mend(&mut object, &wanted));
        assert_eq!(object["rules"].as_array().unwrap().len(), 2);
        assert!(!mend(&mut object, &wanted));
    }
}
