//! The expressions of policies and of match conditions: what each may use.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    ObjectExt,
    cel::{self, CompileError, Declared, Program, Record, Type},
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

/// What is known of what the expressions of one policy may use.
#[derive(Default)]
pub(super) struct Known {
    /// They may use parameters.
    with_params: bool,
    /// What the object is, when that is looked at.
    object: Option<Type<'static>>,
    /// What the parameters are, likewise.
    params: Option<Type<'static>>,
    /// The variables so far.
    variables: Vec<(String, Type<'static>)>,
}

impl Known {
    /// Nothing yet but whether there are parameters.
    pub(super) fn new(with_params: bool) -> Self {
        Known {
            with_params,
            ..Known::default()
        }
    }

    /// The types of the object and of the parameters are looked at, as far as they are known.
    pub(super) fn typed(
        self,
        object: Option<Type<'static>>,
        params: Option<Type<'static>>,
    ) -> Self {
        Known {
            object,
            params,
            ..self
        }
    }

    fn types(&self, purpose: Purpose) -> Vec<(&'static str, Type<'static>)> {
        let mut types = Vec::new();
        for name in purpose.names(self.with_params) {
            let of = match name {
                "object" | "oldObject" => self.object.clone().unwrap_or(Type::Dyn),
                "params" => self.params.clone().unwrap_or(Type::Dyn),
                "request" => Type::request(),
                "namespaceObject" => Type::namespace(),
                "authorizer" => Type::authorizer(),
                // There are none to be named.
                "variables" if self.variables.is_empty() => continue,
                "variables" => Type::Record(Arc::new(Record {
                    name: "kubernetes.variables",
                    fields: self.variables.clone(),
                })),
                _ => Type::Dyn,
            };
            types.push((name, of));
        }
        types
    }

    /// What an expression makes.
    pub(super) fn type_of(
        &self,
        text: &str,
        purpose: Purpose,
    ) -> Result<Type<'static>, CompileError> {
        cel::type_of(text, &self.types(purpose))
    }
}

impl Purpose {
    /// What is wrong with what an expression makes.
    fn refuses(self, found: &Type<'_>) -> Option<String> {
        let (fits, wanted) = match self {
            Purpose::Condition | Purpose::Validation => (matches!(found, Type::Bool), "bool"),
            Purpose::Message => (matches!(found, Type::String), "string"),
            Purpose::AuditAnnotation => (
                matches!(found, Type::String | Type::Null),
                "one of [string null_type]",
            ),
            Purpose::Variable | Purpose::MutationVariable | Purpose::Mutation => return None,
        };
        (!fits).then(|| format!("must evaluate to {wanted} but got {found}"))
    }
}

/// The rule that a field of `holder` is an expression; what it makes.
pub(super) fn check(
    holder: &Value,
    field: &str,
    path: &Path,
    (purpose, known): (Purpose, &Known),
    errors: &mut Errors,
) -> Type<'static> {
    let text = holder.get(field).and_then(Value::as_str).unwrap_or("");
    let at = path.child(field);
    if text.trim().is_empty() {
        errors.required(&at, purpose.missing());
        return Type::Dyn;
    }
    let typed = known.type_of(text, purpose);
    let compiled = compile(text, purpose, known.with_params).map(drop);
    match typed.and_then(|found| compiled.map(|()| found)) {
        Ok(found) => {
            if let Some(why) = purpose.refuses(&found) {
                errors.invalid(&at, text, why);
            }
            found
        }
        Err(error) => {
            errors.invalid(&at, text, format!("compilation failed: {error}"));
            Type::Dyn
        }
    }
}

/// The rules of `variables`, which are known afterwards.
pub(super) fn check_variables(
    object: &Value,
    purpose: Purpose,
    known: &mut Known,
    errors: &mut Errors,
) {
    let path = Path::new("spec").child("variables");
    for (index, variable) in object.list_at("/spec/variables").iter().enumerate() {
        let at = path.index(index);
        let name = variable.str_at("/name");
        if name.trim().is_empty() {
            errors.required(&at.child("name"), "name is not specified");
        } else if !cel::is_identifier(name) {
            let why = "name is not a valid CEL identifier";
            errors.invalid(&at.child("name"), name, why);
        }
        let of = check(variable, "expression", &at, (purpose, known), errors);
        known.variables.push((name.to_string(), of));
    }
}

/// Takes in the types of a policy's variables, whatever is wrong with them.
pub(super) fn learn_variables(policy: &Value, known: &mut Known) {
    for variable in policy.list_at("/spec/variables") {
        let text = variable.str_at("/expression");
        let of = known.type_of(text, Purpose::Variable);
        let name = variable.str_at("/name").to_string();
        known.variables.push((name, of.unwrap_or(Type::Dyn)));
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
    #[test]
    fn expressions_are_typed() {
        let wrong = |expression: &str, purpose: Purpose| {
            let object = serde_json::json!({"spec": {"variables": [
                {"name": "n", "expression": "object.spec.replicas"},
                {"name": "s", "expression": "'x'"}]}});
            let (mut known, mut errors) = (Known::default(), Errors::default());
            check_variables(&object, Purpose::Variable, &mut known, &mut errors);
            let holder = serde_json::json!({"expression": expression});
            let with = (purpose, &known);
            check(&holder, "expression", &Path::new("x"), with, &mut errors);
            let errors: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
            errors.join("\n")
        };
        for (purpose, good) in [
            (Purpose::Validation, "variables.n > 1 && object.a == 'x'"),
            (Purpose::Condition, "request.operation == 'CREATE'"),
            (Purpose::Message, "variables.s + string(variables.n)"),
            (Purpose::AuditAnnotation, "null"),
            (Purpose::Variable, "object"),
        ] {
            assert_eq!(wrong(good, purpose), "", "{good}");
        }
        for (purpose, bad, why) in [
            (
                Purpose::Validation,
                "object.a",
                "must evaluate to bool but got dyn",
            ),
            (
                Purpose::Validation,
                "variables.s > 1",
                "found no matching overload for '_>_' applied to '(string, int)'",
            ),
            (
                Purpose::Validation,
                "variables.m > 1",
                "undefined field 'm'",
            ),
            (
                Purpose::Message,
                "variables.n",
                "must evaluate to string but got dyn",
            ),
            (
                Purpose::AuditAnnotation,
                "1",
                "must evaluate to one of [string null_type] but got int",
            ),
            (
                Purpose::Condition,
                "request.nope == ''",
                "undefined field 'nope'",
            ),
            (
                Purpose::Condition,
                "authorizer.path('/').check('get') == true",
                "found no matching overload",
            ),
        ] {
            let found = wrong(bad, purpose);
            assert!(found.contains(why), "{bad}: {found}");
        }
    }
}
