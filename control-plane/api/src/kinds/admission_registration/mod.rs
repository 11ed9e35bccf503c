//! `admissionregistration.k8s.io`: policies in CEL and webhooks that decide about writes.

mod audit_annotations;
mod expressions;
mod mutating_policy;
mod policy;
mod type_checking;
mod webhook;

use super::PLAIN;
use crate::{
    field::{Errors, Path},
    registry::{Kind, Subresource},
};

pub use expressions::{Purpose as ExpressionPurpose, compile as compile_policy_expression};

const GROUP: &str = "admissionregistration.k8s.io";
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];

/// ValidatingAdmissionPolicy.
pub static VALIDATING_ADMISSION_POLICIES: Kind = Kind {
    group: GROUP,
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[Subresource::Status],
    schema: "admission.ValidatingAdmissionPolicy",
    storage: "validatingadmissionpolicies",
    strategy: &policy::PolicyStrategy,
    ..PLAIN
};

/// ValidatingAdmissionPolicyBinding.
pub static VALIDATING_ADMISSION_POLICY_BINDINGS: Kind = Kind {
    group: GROUP,
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admission.ValidatingAdmissionPolicyBinding",
    storage: "validatingadmissionpolicybindings",
    strategy: &policy::BindingStrategy { mutating: false },
    ..PLAIN
};

/// MutatingAdmissionPolicy.
pub static MUTATING_ADMISSION_POLICIES: Kind = Kind {
    group: GROUP,
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admission.MutatingAdmissionPolicy",
    storage: "mutatingadmissionpolicies",
    strategy: &mutating_policy::PolicyStrategy,
    ..PLAIN
};

/// MutatingAdmissionPolicyBinding.
pub static MUTATING_ADMISSION_POLICY_BINDINGS: Kind = Kind {
    group: GROUP,
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admission.MutatingAdmissionPolicyBinding",
    storage: "mutatingadmissionpolicybindings",
    strategy: &policy::BindingStrategy { mutating: true },
    ..PLAIN
};

/// MutatingWebhookConfiguration.
pub static MUTATING_WEBHOOK_CONFIGURATIONS: Kind = Kind {
    group: GROUP,
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admission.MutatingWebhookConfiguration",
    storage: "mutatingwebhookconfigurations",
    strategy: &webhook::Strategy { mutating: true },
    ..PLAIN
};

/// ValidatingWebhookConfiguration.
pub static VALIDATING_WEBHOOK_CONFIGURATIONS: Kind = Kind {
    group: GROUP,
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admission.ValidatingWebhookConfiguration",
    storage: "validatingwebhookconfigurations",
    strategy: &webhook::Strategy { mutating: false },
    ..PLAIN
};

/// Rules of `rules` and `resourceRules`.
fn check_rules(rules: &[serde_json::Value], path: &Path, errors: &mut Errors) {
    use crate::ObjectExt;
    for (index, rule) in rules.iter().enumerate() {
        let at = path.index(index);
        for field in ["operations", "apiGroups", "apiVersions", "resources"] {
            let values = rule.list_at(&format!("/{field}"));
            if values.is_empty() {
                errors.required(&at.child(field), "");
            }
            if values.len() > 1 && values.iter().any(|value| value == "*") && field != "resources" {
                errors.invalid(
                    &at.child(field),
                    serde_json::json!(values),
                    "if '*' is present, must not specify other values",
                );
            }
        }
        for (at, operation) in rule
            .list_at("/operations")
            .iter()
            .enumerate()
            .map(|(i, value)| {
                (
                    at.child("operations").index(i),
                    value.as_str().unwrap_or(""),
                )
            })
        {
            errors.check_supported(&at, operation, &OPERATIONS);
        }
        let scope = rule.str_at("/scope");
        errors.check_supported(&at.child("scope"), scope, &SCOPES);
    }
}

/// Rules of `matchConditions`: names are unique, expressions are some.
fn check_conditions(
    conditions: &[serde_json::Value],
    path: &Path,
    known: &expressions::Known,
    errors: &mut Errors,
) {
    use crate::ObjectExt;
    const MAX_CONDITIONS: usize = 64;
    if conditions.len() > MAX_CONDITIONS {
        errors.too_many(path, conditions.len(), MAX_CONDITIONS);
    }
    for (index, condition) in conditions.iter().enumerate() {
        let at = path.index(index);
        let name = condition.str_at("/name");
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            for why in crate::names::qualified_name(name) {
                errors.invalid(&at.child("name"), name, why);
            }
        }
        let same = |other: &serde_json::Value| other.str_at("/name") == name;
        if conditions[..index].iter().any(same) {
            errors.duplicate(&at.child("name"), name);
        }
        let with = (expressions::Purpose::Condition, known);
        expressions::check(condition, "expression", &at, with, errors);
    }
}
