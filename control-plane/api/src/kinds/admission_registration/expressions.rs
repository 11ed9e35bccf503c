//! The expressions of policies and of match conditions: what each may use.

use serde_json::Value;

use crate::{
    ObjectExt,
    cel::{CompileError, Declared, Program},
    field::{Errors, Path},
};

/// Names that every expression may use.
const NAMES: [&str; 4] = ["object", "oldObject", "request", "namespaceObject"];
/// Types that a mutation makes.
const PATCH_TYPES: [&str; 2] = ["Object", "JSONPatch"];

/// What an expression is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// One of `matchConditions`, of a policy or of a webhook.
    Condition,
    /// One of `variables`.
    Variable,
    /// One of the `variables` of a policy that mutates.
    MutationVariable,
    /// What must hold.
    Validation,
    /// `messageExpression`.
    Message,
    /// `valueExpression` of an audit annotation.
    AuditAnnotation,
    /// A configuration to apply, or a JSON patch.
    Mutation,
}

impl Purpose {
    fn names(self, with_params: bool) -> Vec<&'static str> {
        let mut names = NAMES.to_vec();
        if with_params {
            names.push("params");
        }
        if self != Purpose::Message {
            names.push("authorizer");
        }
        if self != Purpose::Condition {
            names.push("variables");
        }
        if matches!(self, Purpose::Mutation | Purpose::MutationVariable) {
            names.extend(PATCH_TYPES);
        }
        names
    }

    /// What is said of one that is missing.
    fn missing(self) -> &'static str {
        match self {
            Purpose::Condition | Purpose::Mutation => "",
            Purpose::AuditAnnotation => "valueExpression is not specified",
            _ => "expression is not specified",
        }
    }
}

/// Compiles an expression of a policy or of match conditions.
///
/// # Errors
/// When the expression cannot be used.
pub fn compile(source: &str, purpose: Purpose, with_params: bool) -> Result<Program, CompileError> {
    let names = purpose.names(with_params);
    let names: Vec<Declared<'_>> = names.into_iter().map(Declared::any).collect();
    Program::compile(source, &names)
}

/// The rule that a field of `holder` is an expression.
pub(super) fn check(
    holder: &Value,
    field: &str,
    path: &Path,
    (purpose, with_params): (Purpose, bool),
    errors: &mut Errors,
) {
    let text = holder.get(field).and_then(Value::as_str).unwrap_or("");
    let at = path.child(field);
    if text.trim().is_empty() {
        errors.required(&at, purpose.missing());
    } else if let Err(error) = compile(text, purpose, with_params) {
        errors.invalid(&at, text, format!("compilation failed: {error}"));
    }
}

/// The rules of `variables`.
pub(super) fn check_variables(object: &Value, with: (Purpose, bool), errors: &mut Errors) {
    let path = Path::new("spec").child("variables");
    for (index, variable) in object.list_at("/spec/variables").iter().enumerate() {
        let at = path.index(index);
        let name = variable.str_at("/name");
        if name.trim().is_empty() {
            errors.required(&at.child("name"), "name is not specified");
        } else if !crate::cel::is_identifier(name) {
            let why = "name is not a valid CEL identifier";
            errors.invalid(&at.child("name"), name, why);
        }
        check(variable, "expression", &at, with, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_has_its_names() {
        use Purpose::{AuditAnnotation, Condition, Message, Mutation, MutationVariable, Variable};
        for (source, yes, no) in [
            (
                "authorizer.path('/').check('get').allowed()",
                Condition,
                Message,
            ),
            (
                "authorizer.requestResource.check('get').allowed()",
                AuditAnnotation,
                Message,
            ),
            ("variables.a", Message, Condition),
            ("Object{}", Mutation, AuditAnnotation),
            ("Object{}", MutationVariable, Variable),
        ] {
            assert!(compile(source, yes, false).is_ok(), "{source}");
            let error = compile(source, no, false).unwrap_err();
            assert!(
                matches!(error, CompileError::Undeclared(_)),
                "{source}: {error}"
            );
        }
        assert!(compile("params.a", Condition, true).is_ok());
        assert!(compile("params.a", Condition, false).is_err());
    }
}
