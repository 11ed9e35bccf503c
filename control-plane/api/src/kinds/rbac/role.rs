//! Role and ClusterRole.

use serde_json::{Value, json};

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names::NameRule,
    registry,
    table::NAME_AND_AGE,
};

pub(super) struct Strategy {
    pub namespaced: bool,
}

impl registry::Strategy for Strategy {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn apply_defaults(&self, object: &mut Value) {
        // Always written, as Kubernetes does.
        if object.get("rules").is_none() {
            object.set_at(
                &["rules"],
                if self.namespaced {
                    json!([])
                } else {
                    Value::Null
                },
            );
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        for (index, rule) in object.list_at("/rules").iter().enumerate() {
            validate_rule(
                rule,
                self.namespaced,
                &Path::new("rules").index(index),
                errors,
            );
        }
        let Some(aggregation) = object.get("aggregationRule") else {
            return;
        };
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        if aggregation.list_at("/clusterRoleSelectors").is_empty() {
            errors.required(
                &path,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            );
        }
    }

    fn columns(&self) -> &'static [crate::table::Column] {
        NAME_AND_AGE
    }

    fn row(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/metadata/creationTimestamp")),
        ]
    }
}

fn validate_rule(rule: &Value, namespaced: bool, path: &Path, errors: &mut Errors) {
    let has = |pointer: &str| !rule.list_at(pointer).is_empty();
    if !has("/verbs") {
        errors.required(
            &path.child("verbs"),
            "verbs must contain at least one value",
        );
    }
    if has("/nonResourceURLs") {
        let urls = Value::from(rule.list_at("/nonResourceURLs").to_vec());
        let path = path.child("nonResourceURLs");
        if namespaced {
            errors.invalid(
                &path,
                urls,
                "namespaced rules cannot apply to non-resource URLs",
            );
        } else if has("/apiGroups") || has("/resources") || has("/resourceNames") {
            errors.invalid(
                &path,
                urls,
                "rules cannot apply to both regular resources and non-resource URLs",
            );
        }
        return;
    }
    if !has("/apiGroups") {
        errors.required(
            &path.child("apiGroups"),
            "resource rules must supply at least one api group",
        );
    }
    if !has("/resources") {
        errors.required(
            &path.child("resources"),
            "resource rules must supply at least one resource",
        );
    }
}
