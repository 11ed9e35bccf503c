//! `status.typeChecking` of a policy that validates: what its expressions would do wrong with the
//! kinds that it is about. Only built-in kinds are known here.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::expressions::{self, Known, Purpose};
use crate::{Kind, ObjectExt, Registry, cel::Type};

/// Kinds that are looked at; Kubernetes' limit.
const MAX_KINDS: usize = 10;

/// The status of a policy that was written now.
pub(super) fn status(policy: &Value) -> Value {
    let warnings = warnings(policy);
    let mut checking = json!({});
    if !warnings.is_empty() {
        checking["expressionWarnings"] = json!(warnings);
    }
    let generation = policy.pointer("/metadata/generation").cloned();
    json!({"observedGeneration": generation.unwrap_or_else(|| json!(1)), "typeChecking": checking})
}

fn warnings(policy: &Value) -> Vec<Value> {
    let kinds = kinds(policy);
    let known: Vec<Known> = kinds.iter().map(|kind| known(policy, kind)).collect();
    let mut warnings = Vec::new();
    for (index, validation) in policy.list_at("/spec/validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation.str_at(&format!("/{field}"));
            if text.trim().is_empty() {
                continue;
            }
            let checked = kinds.iter().zip(&known);
            let wrong: Vec<String> = checked
                .filter_map(|(kind, known)| {
                    let error = known.type_of(text, Purpose::Validation).err()?;
                    Some(format!("{}: {error}\n", named(kind)))
                })
                .collect();
            if !wrong.is_empty() {
                warnings.push(json!({
                    "fieldRef": format!("spec.validations[{index}].{field}"),
                    "warning": wrong.join("\n"),
                }));
            }
        }
    }
    warnings
}

/// As Go writes a kind with its group and version.
fn named(kind: &Kind) -> String {
    format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind)
}

/// The kinds that the rules name without `*`, sorted.
fn kinds(policy: &Value) -> Vec<&'static Kind> {
    let registry = Registry::get();
    let mut found = BTreeSet::new();
    for rule in policy.list_at("/spec/matchConstraints/resourceRules") {
        let texts = |field: &str| -> Vec<String> {
            let values = rule.list_at(&format!("/{field}")).iter();
            values
                .filter_map(Value::as_str)
                .map(str::to_string)
                .collect()
        };
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        if groups
            .iter()
            .chain(&versions)
            .any(|text| text.contains('*'))
        {
            continue;
        }
        for resource in texts("resources") {
            for (group, version) in groups
                .iter()
                .flat_map(|g| versions.iter().map(move |v| (g, v)))
            {
                if let Some(kind) = registry.by_resource(group, version, &resource) {
                    found.insert((kind.group, kind.version, kind.kind));
                }
            }
        }
    }
    let found = found.into_iter().take(MAX_KINDS);
    found
        .filter_map(|(group, version, name)| {
            let in_group = registry.in_group(group, version);
            in_group.into_iter().find(|kind| kind.kind == name)
        })
        .collect()
}

/// What expressions may use when the object is of such a kind.
fn known(policy: &Value, kind: &Kind) -> Known {
    let object = Type::of_kind(&kind.group_version(), kind.kind);
    let params = policy.pointer("/spec/paramKind");
    let of_params =
        params.and_then(|kind| Type::of_kind(kind.str_at("/apiVersion"), kind.str_at("/kind")));
    let mut known = Known::new(params.is_some()).typed(object, of_params);
    expressions::learn_variables(policy, &mut known);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(rules: &Value, validations: &Value) -> Value {
        status(
            &json!({"metadata": {"name": "p", "generation": 3}, "spec": {
            "matchConstraints": {"resourceRules": rules},
            "variables": [{"name": "wanted", "expression": "object.spec.replicas"}],
            "validations": validations}}),
        )
    }

    #[test]
    fn expressions_are_checked_against_every_kind_that_is_named() {
        let rules = json!([{"apiGroups": ["apps"], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["deployments", "daemonsets", "deployments/scale"]}]);
        let validations = json!([{"expression": "object.spec.replicas > 1"},
            {"expression": "has(object.metadata.name)", "messageExpression": "object.metadata.nope"}]);
        let found = checked(&rules, &validations);
        assert_eq!(found["observedGeneration"], 3);
        let warnings = &found["typeChecking"]["expressionWarnings"];
        assert_eq!(
            warnings[0],
            json!({"fieldRef": "spec.validations[0].expression",
                "warning": "apps/v1, Kind=DaemonSet: ERROR: <input>:1:12: undefined field 'replicas'\n | object.spec.replicas > 1\n | ...........^\n"})
        );
        assert_eq!(
            warnings[1]["fieldRef"],
            "spec.validations[1].messageExpression"
        );
        let text = warnings[1]["warning"].as_str().unwrap();
        assert_eq!(text.matches("undefined field 'nope'").count(), 2, "{text}");
        assert_eq!(warnings.as_array().unwrap().len(), 2);
    }

    #[test]
    fn variables_have_the_types_of_their_expressions() {
        let rules =
            json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]);
        let good = checked(&rules, &json!([{"expression": "variables.wanted > 1"}]));
        assert_eq!(good["typeChecking"], json!({}));
        let bad = checked(&rules, &json!([{"expression": "variables.wanted == 'x'"}]));
        let text = bad["typeChecking"]["expressionWarnings"][0]["warning"].to_string();
        assert!(text.contains("'_==_' applied to '(int, string)'"), "{text}");
    }

    #[test]
    fn wildcards_and_unknown_kinds_are_not_checked() {
        for resources in [
            json!({"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]}),
            json!({"apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"]}),
            json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["*", "pods/status"]}),
            json!({"apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["things"]}),
        ] {
            let found = checked(&json!([resources]), &json!([{"expression": "object.nope"}]));
            assert_eq!(found["typeChecking"], json!({}), "{resources}");
        }
    }
}
