//! Expressions about a write: match conditions, and what all expressions may see.

use std::rc::Rc;

use hull_api::{
    ObjectExt,
    cel::{CALL_COST, EvalError, OBJECT_COST, Program, Value as Cel},
    kinds::{self, ExpressionPurpose, compile_policy_expression},
};
use serde_json::Value;

use super::{Attributes, authorizer::Asker};

/// What the match conditions of a policy or webhook may cost together; Kubernetes' limit.
const CONDITIONS_COST: u64 = 2_500_000;

/// Objects that expressions see, gathered once per write.
pub(super) struct Seen<'a> {
    request: Value,
    namespace: Value,
    asker: Asker<'a>,
}

impl<'a> Seen<'a> {
    pub(super) fn of(attributes: &Attributes<'a>) -> Self {
        let kind = &kinds::NAMESPACES;
        let key = kind.key("", attributes.namespace());
        let cache = &attributes.context.backend.cache;
        let namespace = match attributes.namespace() {
            "" => None,
            _ => cache.get(kind.storage, &key),
        };
        Seen {
            request: attributes.request(""),
            namespace: namespace.map_or(Value::Null, |found| found.kept().clone()),
            asker: Asker::of(attributes),
        }
    }

    /// The names of expressions and what they stand for.
    pub(super) fn names<'s>(&'s self, attributes: &Attributes<'s>) -> Vec<(&'static str, Cel<'s>)> {
        let json = |object: Option<&'s Value>| object.map_or(Cel::Null, Cel::json);
        vec![
            ("object", json(attributes.object)),
            ("oldObject", json(attributes.old)),
            ("request", Cel::json(&self.request)),
            ("namespaceObject", Cel::json(&self.namespace)),
            ("authorizer", Cel::Check(Rc::new(self.asker.variable()))),
        ]
    }
}

/// What evaluations may still cost.
pub(super) struct Budget(u64);

impl Default for Budget {
    fn default() -> Self {
        Budget(OBJECT_COST)
    }
}

impl Budget {
    /// That of match conditions.
    pub(super) fn of_conditions() -> Self {
        Budget(CONDITIONS_COST)
    }

    /// Nothing is left.
    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    pub(super) fn evaluate<'a>(
        &mut self,
        program: &'a Program,
        names: &[(&str, Cel<'a>)],
    ) -> Result<Cel<'a>, EvalError> {
        let allowed = self.0.min(CALL_COST);
        let mut left = allowed;
        let outcome = program.evaluate(names, &mut left);
        self.0 -= allowed - left;
        outcome
    }
}

/// A match condition.
#[derive(Debug)]
pub(super) struct Condition {
    name: String,
    program: Program,
}

/// Reads `matchConditions`; what is wrong with them was found when they were written, so an
/// error here means that they come from another version of the server.
pub(super) fn read(holder: &Value, pointer: &str, params: bool) -> Result<Vec<Condition>, String> {
    holder
        .list_at(pointer)
        .iter()
        .map(|condition| {
            let name = condition.str_at("/name");
            let text = condition.str_at("/expression");
            match compile_policy_expression(text, ExpressionPurpose::Condition, params) {
                Ok(program) => Ok(Condition {
                    name: name.to_string(),
                    program,
                }),
                Err(error) => Err(format!("match condition {name:?}: {error}")),
            }
        })
        .collect()
}

/// Whether all conditions hold. One that does not hold decides, also over errors in others.
pub(super) fn hold<'a>(
    conditions: &'a [Condition],
    names: &[(&str, Cel<'a>)],
    budget: &mut Budget,
) -> Result<bool, String> {
    let mut first_error = None;
    for condition in conditions {
        match budget.evaluate(&condition.program, names) {
            Ok(Cel::Bool(true)) => {}
            Ok(Cel::Bool(false)) => return Ok(false),
            Ok(other) => {
                first_error.get_or_insert(format!(
                    "match condition {:?}: {} instead of bool",
                    condition.name,
                    other.type_name()
                ));
            }
            Err(error) => {
                first_error.get_or_insert(format!("match condition {:?}: {error}", condition.name));
            }
        }
    }
    first_error.map_or(Ok(true), Err)
}
