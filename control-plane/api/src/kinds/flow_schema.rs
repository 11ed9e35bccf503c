//! FlowSchema: which requests belong to which level of priority.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::default_to,
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `flowcontrol.apiserver.k8s.io/v1` FlowSchema.
pub static FLOW_SCHEMAS: Kind = Kind {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "FlowSchema",
    plural: "flowschemas",
    singular: "flowschema",
    namespaced: false,
    subresources: &[Subresource::Status],
    schema: "flowcontrol.FlowSchema",
    storage: "flowschemas",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const DEFAULT_PRECEDENCE: i64 = 1000;
const MAX_PRECEDENCE: i64 = 10_000;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("PriorityLevel", "The level that its requests are of."),
    table::number("MatchingPrecedence", "The lowest that matches wins."),
    table::column("DistinguisherMethod", "What makes two flows of one schema."),
    table::AGE,
    table::column("MissingPL", "The level does not exist."),
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let spec = object.map_mut(&["spec"]);
        default_to(spec, "matchingPrecedence", DEFAULT_PRECEDENCE);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let precedence = object.int_at("/spec/matchingPrecedence").unwrap_or(0);
        let path = spec.child("matchingPrecedence");
        if precedence <= 0 {
            errors.invalid(&path, precedence, "must be a positive value");
        } else if precedence > MAX_PRECEDENCE {
            errors.invalid(
                &path,
                precedence,
                format!("must not be greater than {MAX_PRECEDENCE}"),
            );
        }
        let path = spec.child("priorityLevelConfiguration").child("name");
        let level = object.str_at("/spec/priorityLevelConfiguration/name");
        if level.is_empty() {
            errors.required(&path, "must reference a priority level");
        } else {
            for why in names::subdomain(level) {
                errors.invalid(&path, level, why);
            }
        }
        if let Some(method) = object.pointer("/spec/distinguisherMethod") {
            errors.check_supported(
                &spec.child("distinguisherMethod").child("type"),
                method.str_at("/type"),
                &["ByNamespace", "ByUser"],
            );
        }
        for (index, rule) in object.list_at("/spec/rules").iter().enumerate() {
            validate_rule(rule, &spec.child("rules").index(index), errors);
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let dangling = object
            .list_at("/status/conditions")
            .iter()
            .find(|condition| condition.str_at("/type") == "Dangling");
        let dangling = dangling.map_or("?", |condition| condition.str_at("/status"));
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/spec/priorityLevelConfiguration/name")),
            Value::from(object.int_at("/spec/matchingPrecedence").unwrap_or(0)),
            table::text_or(object.str_at("/spec/distinguisherMethod/type"), "<none>"),
            table::age_cell(object, now),
            Value::from(dangling),
        ]
    }
}

fn validate_rule(rule: &Value, path: &Path, errors: &mut Errors) {
    let subjects = rule.list_at("/subjects");
    if subjects.is_empty() {
        errors.required(
            &path.child("subjects"),
            "subjects must contain at least one value",
        );
    }
    for (index, subject) in subjects.iter().enumerate() {
        let path = path.child("subjects").index(index);
        errors.check_supported(
            &path.child("kind"),
            subject.str_at("/kind"),
            &["Group", "ServiceAccount", "User"],
        );
    }
    let (resources, others) = (
        rule.list_at("/resourceRules"),
        rule.list_at("/nonResourceRules"),
    );
    if resources.is_empty() && others.is_empty() {
        errors.required(
            path,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        );
    }
    for (field, rules, needed) in [
        (
            "resourceRules",
            resources,
            &["verbs", "apiGroups", "resources"][..],
        ),
        ("nonResourceRules", others, &["verbs", "nonResourceURLs"]),
    ] {
        for (index, rule) in rules.iter().enumerate() {
            let path = path.child(field).index(index);
            for list in needed {
                if rule.list_at(&format!("/{list}")).is_empty() {
                    errors.required(&path.child(list), "must contain at least one value");
                }
            }
            let scoped = rule.bool_at("/clusterScope") || !rule.list_at("/namespaces").is_empty();
            if field == "resourceRules" && !scoped {
                errors.required(
                    &path.child("namespaces"),
                    "resource rules that are not cluster scoped must supply at least one namespace",
                );
            }
        }
    }
}
