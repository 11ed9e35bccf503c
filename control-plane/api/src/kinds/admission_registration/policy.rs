//! ValidatingAdmissionPolicy and its binding.

use serde_json::{Value, json};

use super::{
    FAILURE_POLICIES, MATCH_POLICIES, audit_annotations, check_conditions, check_rules,
    expressions::{self, Known, Purpose},
    type_checking,
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    meta,
    object::{default_text, default_to},
    registry,
};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
const NOT_FOUND_ACTIONS: [&str; 2] = ["Allow", "Deny"];
const REASONS: [&str; 4] = [
    "Forbidden",
    "Invalid",
    "RequestEntityTooLarge",
    "Unauthorized",
];

/// Defaults of `matchConstraints` and `matchResources`.
pub(super) fn default_matching(object: &mut Value, path: &[&str]) {
    let matching = object.map_mut(path);
    default_text(matching, "matchPolicy", "Equivalent");
    for selector in ["namespaceSelector", "objectSelector"] {
        default_to(matching, selector, json!({}));
    }
    for rules in ["resourceRules", "excludeResourceRules"] {
        for rule in matching
            .get_mut(rules)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            default_text(rule.map_mut(&[]), "scope", "*");
        }
    }
}

fn check_matching(matching: Option<&Value>, path: &Path, errors: &mut Errors) {
    let Some(matching) = matching else { return };
    errors.check_supported(
        &path.child("matchPolicy"),
        matching.str_at("/matchPolicy"),
        &MATCH_POLICIES,
    );
    for rules in ["resourceRules", "excludeResourceRules"] {
        let list = matching.list_at(&format!("/{rules}"));
        check_rules(list, &path.child(rules), errors);
    }
}

/// What policies of both kinds have in common; what their expressions may use.
pub(super) fn check_policy(object: &Value, variables: Purpose, errors: &mut Errors) -> Known {
    let spec = Path::new("spec");
    let failure = object.str_at("/spec/failurePolicy");
    errors.check_supported(&spec.child("failurePolicy"), failure, &FAILURE_POLICIES);
    let constraints = object.pointer("/spec/matchConstraints");
    let at = spec.child("matchConstraints");
    if constraints.is_none() {
        errors.required(&at, "");
    } else if object
        .list_at("/spec/matchConstraints/resourceRules")
        .is_empty()
    {
        errors.required(&at.child("resourceRules"), "");
    }
    check_matching(constraints, &at, errors);
    let params = object.pointer("/spec/paramKind");
    if let Some(kind) = params {
        for field in ["apiVersion", "kind"] {
            if kind.str_at(&format!("/{field}")).is_empty() {
                errors.required(&spec.child("paramKind").child(field), "");
            }
        }
    }
    let mut known = Known::new(params.is_some());
    check_conditions(
        object.list_at("/spec/matchConditions"),
        &spec.child("matchConditions"),
        &known,
        errors,
    );
    expressions::check_variables(object, variables, &mut known, errors);
    known
}

/// One of `validations`.
fn check_validation(validation: &Value, at: &Path, known: &Known, errors: &mut Errors) {
    let with = (Purpose::Validation, known);
    expressions::check(validation, "expression", at, with, errors);
    let words = validation.str_at("/messageExpression");
    if !words.trim().is_empty() {
        let with = (Purpose::Message, known);
        expressions::check(validation, "messageExpression", at, with, errors);
    } else if !words.is_empty() {
        let why = "must be non-empty if specified";
        errors.invalid(&at.child("messageExpression"), words, why);
    }
    let message = validation.str_at("/message");
    if !message.is_empty() && message.trim().is_empty() {
        let why = "message must be non-empty if specified";
        errors.invalid(&at.child("message"), message, why);
    } else if message.trim().contains(['\n', '\r']) {
        let why = "message must not contain line breaks";
        errors.invalid(&at.child("message"), message, why);
    }
    let reason = validation.str_at("/reason");
    if !reason.is_empty() {
        errors.check_supported(&at.child("reason"), reason, &REASONS);
    }
}

pub(super) struct PolicyStrategy;

impl registry::Strategy for PolicyStrategy {
    fn apply_defaults(&self, object: &mut Value) {
        default_text(object.map_mut(&["spec"]), "failurePolicy", "Fail");
        if object.pointer("/spec/matchConstraints").is_some() {
            default_matching(object, &["spec", "matchConstraints"]);
        }
    }

    /// What was accepted once by less strict rules may stay.
    fn validate_change(&self, new: &Value, old: &Value, errors: &mut Errors) {
        if new.get("spec") != old.get("spec") {
            self.validate(new, errors);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let known = check_policy(object, Purpose::Variable, errors);
        let validations = object.list_at("/spec/validations");
        if validations.is_empty() && object.list_at("/spec/auditAnnotations").is_empty() {
            for field in ["validations", "auditAnnotations"] {
                let why = "validations or auditAnnotations must contain at least one item";
                errors.required(&spec.child(field), why);
            }
        }
        for (index, validation) in validations.iter().enumerate() {
            let at = spec.child("validations").index(index);
            check_validation(validation, &at, &known, errors);
        }
        audit_annotations::check(object, &known, errors);
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["metadata", "generation"], Value::from(1));
        let status = type_checking::status(object);
        object.set_at(&["status"], status);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        meta::bump_generation(new, old);
        let mut status = old.get("status").cloned().unwrap_or_else(|| json!({}));
        if new.get("spec") != old.get("spec") {
            for (field, value) in type_checking::status(new).as_object().into_iter().flatten() {
                status[field] = value.clone();
            }
        }
        new.set_at(&["status"], status);
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        true
    }
}

/// Of bindings of both kinds.
pub(super) struct BindingStrategy {
    /// Of a policy that mutates: it has no actions.
    pub mutating: bool,
}

impl registry::Strategy for BindingStrategy {
    fn apply_defaults(&self, object: &mut Value) {
        if object.pointer("/spec/matchResources").is_some() {
            default_matching(object, &["spec", "matchResources"]);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["metadata", "generation"], Value::from(1));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        meta::bump_generation(new, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        if object.str_at("/spec/policyName").is_empty() {
            errors.required(&spec.child("policyName"), "");
        }
        let actions = object.list_at("/spec/validationActions");
        let at = spec.child("validationActions");
        if actions.is_empty() && !self.mutating {
            errors.required(&at, "at least one validation action is required");
        }
        for (index, action) in actions.iter().enumerate() {
            errors.check_supported(&at.index(index), action.as_str().unwrap_or(""), &ACTIONS);
            if actions[..index].contains(action) {
                errors.duplicate(&at.index(index), action.clone());
            }
        }
        let has = |action: &str| actions.iter().any(|one| one == action);
        if has("Deny") && has("Warn") {
            errors.invalid(
                &at,
                json!(actions),
                "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
            );
        }
        check_matching(
            object.pointer("/spec/matchResources"),
            &spec.child("matchResources"),
            errors,
        );
        if let Some(params) = object.pointer("/spec/paramRef") {
            let at = spec.child("paramRef");
            let named = !params.str_at("/name").is_empty();
            if named == params.get("selector").is_some() {
                errors.required(&at, "exactly one of name and selector must be set");
            }
            let action = params.str_at("/parameterNotFoundAction");
            if action.is_empty() {
                errors.required(&at.child("parameterNotFoundAction"), "");
            } else {
                let at = at.child("parameterNotFoundAction");
                errors.check_supported(&at, action, &NOT_FOUND_ACTIONS);
            }
        }
    }
}
