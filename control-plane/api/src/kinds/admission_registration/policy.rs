//! ValidatingAdmissionPolicy and its binding.

use serde_json::{Value, json};

use super::{FAILURE_POLICIES, MATCH_POLICIES, check_conditions, check_rules};
use crate::{
    ObjectExt,
    cel::{CompileError, Declared, Program},
    field::{Errors, Path},
    meta,
    object::{default_text, default_to},
    registry,
};

/// Names that every expression of a policy may use.
const NAMES: [&str; 5] = [
    "object",
    "oldObject",
    "request",
    "namespaceObject",
    "variables",
];
pub(super) const PARAMS: &str = "params";
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
const NOT_FOUND_ACTIONS: [&str; 2] = ["Allow", "Deny"];
const REASONS: [&str; 4] = [
    "Forbidden",
    "Invalid",
    "RequestEntityTooLarge",
    "Unauthorized",
];

/// Compiles an expression of a policy or of a webhook's match conditions.
///
/// # Errors
/// When the expression cannot be used.
pub fn compile(source: &str, with_params: bool) -> Result<Program, CompileError> {
    let mut names: Vec<Declared<'_>> = NAMES.iter().map(|name| Declared::any(name)).collect();
    if with_params {
        names.push(Declared::any(PARAMS));
    }
    Program::compile(source, &names)
}

/// Compiles an expression that makes a configuration to apply or a JSON patch.
///
/// # Errors
/// When the expression cannot be used.
pub fn compile_mutation(source: &str, with_params: bool) -> Result<Program, CompileError> {
    const TYPES: [&str; 2] = ["Object", "JSONPatch"];
    let names = NAMES.iter().chain(&TYPES);
    let mut names: Vec<Declared<'_>> = names.map(|name| Declared::any(name)).collect();
    if with_params {
        names.push(Declared::any(PARAMS));
    }
    Program::compile(source, &names)
}

/// The rule that a field of `holder` is an expression.
pub(super) fn check_expression(
    holder: &Value,
    field: &str,
    path: &Path,
    names: &[&str],
    errors: &mut Errors,
) {
    let text = holder.get(field).and_then(Value::as_str).unwrap_or("");
    let at = path.child(field);
    if text.trim().is_empty() {
        errors.required(&at, "");
        return;
    }
    let with_params = names.contains(&PARAMS);
    if let Err(error) = compile(text, with_params) {
        errors.invalid(&at, text, format!("compilation failed: {error}"));
    }
}

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

/// What policies of both kinds have in common; the names that their expressions may use.
pub(super) fn check_policy(object: &Value, errors: &mut Errors) -> Vec<&'static str> {
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
    let mut names = NAMES.to_vec();
    if let Some(kind) = object.pointer("/spec/paramKind") {
        names.push(PARAMS);
        for field in ["apiVersion", "kind"] {
            if kind.str_at(&format!("/{field}")).is_empty() {
                errors.required(&spec.child("paramKind").child(field), "");
            }
        }
    }
    check_conditions(
        object.list_at("/spec/matchConditions"),
        &spec.child("matchConditions"),
        &names,
        errors,
    );
    for (index, variable) in object.list_at("/spec/variables").iter().enumerate() {
        let at = spec.child("variables").index(index);
        if variable.str_at("/name").is_empty() {
            errors.required(&at.child("name"), "name is not specified");
        }
        check_expression(variable, "expression", &at, &names, errors);
    }
    names
}

pub(super) struct PolicyStrategy;

impl registry::Strategy for PolicyStrategy {
    fn apply_defaults(&self, object: &mut Value) {
        default_text(object.map_mut(&["spec"]), "failurePolicy", "Fail");
        if object.pointer("/spec/matchConstraints").is_some() {
            default_matching(object, &["spec", "matchConstraints"]);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let names = check_policy(object, errors);
        let validations = object.list_at("/spec/validations");
        let annotations = object.list_at("/spec/auditAnnotations");
        if validations.is_empty() && annotations.is_empty() {
            errors.required(
                &spec.child("validations"),
                "validations or auditAnnotations must contain at least one item",
            );
        }
        if !annotations.is_empty() {
            errors.forbidden(
                &spec.child("auditAnnotations"),
                "unimplemented: there is no audit log that they could go to",
            );
        }
        for (index, validation) in validations.iter().enumerate() {
            let at = spec.child("validations").index(index);
            check_expression(validation, "expression", &at, &names, errors);
            if !validation.str_at("/messageExpression").is_empty() {
                check_expression(validation, "messageExpression", &at, &names, errors);
            }
            let reason = validation.str_at("/reason");
            if !reason.is_empty() {
                errors.check_supported(&at.child("reason"), reason, &REASONS);
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["status"], json!({}));
        object.set_at(&["metadata", "generation"], Value::from(1));
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
            errors.required(&at, "");
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
