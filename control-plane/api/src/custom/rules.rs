//! `x-kubernetes-validations`: rules in CEL, for a value and for its change. [`super::attach`]
//! compiles them.

use serde_json::Value;

use super::{
    node::{ListRule, Node, ValueType},
    trail::Trail,
};
use crate::{
    cel::{self, CALL_COST, EvalError, OBJECT_COST, Program},
    field::{ErrorKind, FieldError},
};

/// Longest message that an expression may make, in bytes; Kubernetes' limit.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;
/// Errors reported at most.
const MAX_ERRORS: usize = 128;

/// One rule.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) rule: String,
    pub(super) program: Program,
    pub(super) message: String,
    pub(super) message_expression: Option<Program>,
    pub(super) kind: ErrorKind,
    /// Appended to the value's path.
    pub(super) field_path: Vec<String>,
    pub(super) optional_old_self: bool,
    pub(super) uses_old_self: bool,
}

/// Checks the rules for an object and, with `old`, for its change. An object that is not even of
/// the right form is not looked at.
pub(super) fn check(
    node: &Node,
    object: &Value,
    old: Option<&Value>,
    errors: &mut Vec<FieldError>,
) {
    if !node.has_validations {
        return;
    }
    let blocks = |error: &FieldError| {
        matches!(
            error.kind,
            ErrorKind::NotSupported
                | ErrorKind::Required
                | ErrorKind::TooLong
                | ErrorKind::TooMany
                | ErrorKind::TypeInvalid
        )
    };
    if errors.iter().any(blocks) {
        errors.push(FieldError {
            kind: ErrorKind::Invalid,
            field: "<nil>".to_string(),
            value: Some(Value::Null),
            detail: "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation".to_string(),
        });
        return;
    }
    let mut check = Check {
        errors,
        left: OBJECT_COST,
        stopped: false,
    };
    check.value(node, object, old, &Trail::Root);
}

struct Check<'e> {
    errors: &'e mut Vec<FieldError>,
    left: u64,
    stopped: bool,
}

impl Check<'_> {
    fn value(&mut self, node: &Node, value: &Value, old: Option<&Value>, at: &Trail<'_>) {
        if !node.has_validations || self.stopped || value.is_null() {
            return;
        }
        // A list's old elements are known by their keys only, all else by its place.
        let old = old.filter(|old| !old.is_null());
        for rule in &node.validations {
            self.rule(rule, node, value, old, at);
            if self.stopped {
                return;
            }
        }
        match value {
            Value::Object(map) => {
                for (name, item) in map {
                    if let Some(inner) = node.field(name) {
                        let old = old.and_then(|old| old.get(name));
                        self.value(inner, item, old, &Trail::Field(at, name));
                    }
                }
            }
            Value::Array(items) => {
                let Some(inner) = &node.items else { return };
                for (index, item) in items.iter().enumerate() {
                    let before = match &node.list {
                        ListRule::Map(keys) => same_element(keys, item, index, old),
                        _ => None,
                    };
                    self.value(inner, item, before, &Trail::Index(at, index));
                }
            }
            _ => {}
        }
    }

    fn rule(
        &mut self,
        rule: &Validation,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        at: &Trail<'_>,
    ) {
        let unchanged = old.is_some_and(|old| old == value);
        if (rule.uses_old_self && old.is_none() && !rule.optional_old_self)
            || (!rule.uses_old_self && unchanged)
        {
            return;
        }
        let mut names = vec![("self", cel::Value::typed(value, Some(node)))];
        let old = old.map(|old| cel::Value::typed(old, Some(node)));
        if rule.optional_old_self {
            names.push(("oldSelf", cel::Value::Optional(old.map(Box::new))));
        } else if let Some(old) = old {
            names.push(("oldSelf", old));
        }
        let says = match self.evaluate(&rule.program, &names) {
            Ok(cel::Value::Bool(true)) => return,
            Ok(cel::Value::Bool(false)) => None,
            Ok(other) => Some(format!(
                "rule evaluated to {} instead of bool: {}",
                other.type_name(),
                rule.shown()
            )),
            Err(error) => Some(self.complaint(&error, rule)),
        };
        let failed = says.is_none();
        let detail = says.unwrap_or_else(|| self.message(rule, &names));
        let structured = matches!(node.value_type, Some(ValueType::Object | ValueType::Array));
        let shows_value =
            !structured && !matches!(rule.kind, ErrorKind::Required | ErrorKind::Forbidden);
        let mut field = if matches!(at, Trail::Root) {
            String::new()
        } else {
            at.to_string()
        };
        for name in &rule.field_path {
            if !field.is_empty() {
                field.push('.');
            }
            field.push_str(name);
        }
        if field.is_empty() {
            field = "<nil>".to_string();
        }
        if self.errors.len() >= MAX_ERRORS {
            self.stopped = true;
            return;
        }
        self.errors.push(FieldError {
            kind: if failed {
                rule.kind
            } else {
                ErrorKind::Invalid
            },
            field,
            value: shows_value.then(|| value.clone()),
            detail,
        });
    }

    /// Takes the cost from what is left for the object.
    fn evaluate<'a>(
        &mut self,
        program: &'a Program,
        names: &[(&str, cel::Value<'a>)],
    ) -> Result<cel::Value<'a>, EvalError> {
        let allowed = self.left.min(CALL_COST);
        let mut budget = allowed;
        let outcome = program.evaluate(names, &mut budget);
        self.left -= allowed - budget;
        outcome
    }

    fn complaint(&mut self, error: &EvalError, rule: &Validation) -> String {
        match error {
            EvalError::Cost if self.left == 0 => {
                self.stopped = true;
                "validation failed due to running out of cost budget, no further validation rules will be run".to_string()
            }
            EvalError::Cost => {
                self.stopped = true;
                format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    rule.shown()
                )
            }
            EvalError::Overload(_) => format!(
                "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                rule.shown()
            ),
            _ => format!("{error} evaluating rule: {}", rule.shown()),
        }
    }

    fn message<'a>(&mut self, rule: &'a Validation, names: &[(&str, cel::Value<'a>)]) -> String {
        let made = rule.message_expression.as_ref().and_then(|program| {
            let text = self.evaluate(program, names).ok()?;
            let cel::Value::String(text) = text else {
                return None;
            };
            let text = text.as_str().trim();
            let fits =
                !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains(['\n', '\r']);
            fits.then(|| text.to_string())
        });
        made.unwrap_or_else(|| match rule.message.as_str() {
            "" => format!("failed rule: {}", rule.rule),
            message => message.to_string(),
        })
    }
}

impl Validation {
    /// How errors speak of it.
    fn shown(&self) -> &str {
        if self.message.is_empty() {
            &self.rule
        } else {
            &self.message
        }
    }
}

/// The old element with the same keys.
fn same_element<'v>(
    keys: &[String],
    item: &Value,
    index: usize,
    old: Option<&'v Value>,
) -> Option<&'v Value> {
    let old = old?.as_array()?;
    let same = |other: &&Value| keys.iter().all(|key| other.get(key) == item.get(key));
    // Nearly always at the same place.
    old.get(index)
        .filter(same)
        .or_else(|| old.iter().find(same))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
