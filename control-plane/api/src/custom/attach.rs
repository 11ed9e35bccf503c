//! Compiles `x-kubernetes-validations` with the schema that they are in, and tells what is wrong
//! with them.

use serde_json::Value;

use super::{
    json_path::JsonPath,
    node::{Additional, ListRule, Node},
    rule_costs::{Cost, Costs},
    rules::Validation,
};
use crate::{
    ObjectExt,
    cel::{self, CompileError, Declared, Program, Type},
    field::{ErrorKind, Errors, Path},
};

const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];
/// Compiles the rules of a schema and of everything below it.
pub(super) fn attach(node: &mut Node, schema: &Value, path: &Path, errors: &mut Errors) {
    let mut attach = Attach {
        errors,
        costs: Costs::default(),
    };
    let place = Place {
        root: true,
        uncorrelated: None,
        cardinality: Some(1),
    };
    attach.node(node, schema, path, place);
    let Attach { errors, costs } = attach;
    costs.check(path, errors);
}

struct Attach<'e> {
    errors: &'e mut Errors,
    costs: Costs,
}

/// Where a schema is.
#[derive(Clone, Copy)]
struct Place<'p> {
    root: bool,
    /// Below this nothing old can be told to be the same.
    uncorrelated: Option<&'p Path>,
    /// How many values of the schema an object can have; `None`: as many as there is room for.
    cardinality: Option<u64>,
}

impl<'p> Place<'p> {
    /// Of a field.
    fn below(self) -> Self {
        Place {
            root: false,
            ..self
        }
    }

    /// Of so many elements or values.
    fn times(self, count: Option<u64>) -> Self {
        let cardinality = match (self.cardinality, count) {
            (Some(outer), Some(count)) => Some(outer.saturating_mul(count)),
            _ => None,
        };
        Place {
            root: false,
            cardinality,
            ..self
        }
    }
}

impl Attach<'_> {
    fn node(&mut self, node: &mut Node, schema: &Value, path: &Path, place: Place<'_>) {
        let mut has_validations = false;
        let properties = path.child("properties");
        for (name, inner) in &mut node.properties {
            if let Some(schema) = schema.get("properties").and_then(|all| all.get(name)) {
                self.node(inner, schema, &properties.key(name), place.below());
                has_validations |= inner.has_validations;
            }
        }
        if let (Some(inner), Some(schema)) = (&mut node.items, schema.get("items")) {
            let correlated = matches!(node.list, ListRule::Map(_));
            let mut below = place.times(node.rules.as_deref().and_then(|rules| rules.max_items));
            if !correlated {
                below.uncorrelated = place.uncorrelated.or(Some(path));
            }
            self.node(inner, schema, &path.child("items"), below);
            has_validations |= inner.has_validations;
        }
        if let (Additional::Schema(inner), Some(schema)) =
            (&mut node.additional, schema.get("additionalProperties"))
        {
            let at = path.child("additionalProperties");
            let most = node.rules.as_deref().and_then(|rules| rules.max_properties);
            self.node(inner, schema, &at, place.times(most));
            has_validations |= inner.has_validations;
        }
        let mut rules = Vec::new();
        let list = schema
            .get("x-kubernetes-validations")
            .and_then(Value::as_array);
        for (index, rule) in list.into_iter().flatten().enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            rules.extend(self.rule(node, rule, &at, place));
        }
        node.has_validations = has_validations || !rules.is_empty();
        node.validations = rules;
    }

    fn rule(
        &mut self,
        node: &Node,
        rule: &Value,
        at: &Path,
        place: Place<'_>,
    ) -> Option<Validation> {
        let root = place.root;
        let text = rule.str_at("/rule").trim();
        if text.is_empty() {
            self.errors
                .required(&at.child("rule"), "rule is not specified");
            return None;
        }
        self.words(rule, text, at);
        let declared = |name| Declared {
            name,
            schema: Some(node),
            is_resource: root || node.embedded,
        };
        let names = [declared("self"), declared("oldSelf")];
        let types = types(node, root, rule.bool_at("/optionalOldSelf"));
        let (program, wrong) = compile(text, &names, &types, &Type::Bool);
        if let Some(wrong) = wrong {
            let detail = match wrong {
                Wrong::Expression(error) => format!("compilation failed: {error}"),
                Wrong::Result => "cel expression must evaluate to a bool".to_string(),
            };
            self.errors.invalid(&at.child("rule"), rule.clone(), detail);
        }
        let program = program?;
        let cost = Cost::of(node, root, place.cardinality);
        self.costs.rule(&cost, text, &at.child("rule"), self.errors);
        let message_expression = match rule.str_at("/messageExpression").trim() {
            "" => None,
            text => {
                let (program, wrong) = compile(text, &names, &types, &Type::String);
                if let Some(wrong) = wrong {
                    let detail = match wrong {
                        Wrong::Expression(error) => {
                            format!("messageExpression compilation failed: {error}")
                        }
                        Wrong::Result => "messageExpression must evaluate to a string".to_string(),
                    };
                    let at = at.child("messageExpression");
                    self.errors.invalid(&at, rule.clone(), detail);
                }
                let at = at.child("messageExpression");
                cost.check_message(text, &at, self.errors);
                program
            }
        };
        let uses_old_self = program.uses("oldSelf");
        match (uses_old_self, place.uncorrelated) {
            (true, Some(within)) => self.errors.invalid(
                &at.child("rule"),
                text,
                format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {within}"
                ),
            ),
            (false, _) if rule.get("optionalOldSelf").is_some() => self.errors.invalid(
                &at.child("optionalOldSelf"),
                rule.bool_at("/optionalOldSelf"),
                "may not be set if oldSelf is not used in rule",
            ),
            _ => {}
        }
        Some(Validation {
            rule: text.to_string(),
            program,
            message: rule.str_at("/message").trim().to_string(),
            message_expression,
            kind: match rule.str_at("/reason") {
                "FieldValueRequired" => ErrorKind::Required,
                "FieldValueForbidden" => ErrorKind::Forbidden,
                "FieldValueDuplicate" => ErrorKind::Duplicate,
                _ => ErrorKind::Invalid,
            },
            field_path: self.field_path(node, rule.str_at("/fieldPath"), at),
            optional_old_self: rule.bool_at("/optionalOldSelf"),
            uses_old_self,
        })
    }

    /// Rules of what stands beside the rule.
    fn words(&mut self, rule: &Value, text: &str, at: &Path) {
        let breaks = |text: &str| text.contains(['\n', '\r']);
        if let Some(Value::String(message)) = rule.get("message")
            && !message.is_empty()
        {
            if message.trim().is_empty() {
                self.errors.invalid(
                    &at.child("message"),
                    message.as_str(),
                    "must be non-empty if specified",
                );
            } else if breaks(message.trim()) {
                self.errors.invalid(
                    &at.child("message"),
                    message.as_str(),
                    "must not contain line breaks",
                );
            }
        } else if breaks(text) {
            self.errors.required(
                &at.child("message"),
                "message must be specified if rule contains line breaks",
            );
        }
        if let Some(Value::String(reason)) = rule.get("reason") {
            self.errors
                .check_supported(&at.child("reason"), reason, &REASONS);
        }
    }

    fn field_path(&mut self, node: &Node, text: &str, at: &Path) -> Vec<String> {
        if text.is_empty() {
            return Vec::new();
        }
        let parsed = JsonPath::parse(text).ok();
        let fields = parsed.as_ref().and_then(JsonPath::fields);
        let known = fields.filter(|fields| {
            fields
                .iter()
                .try_fold(node, |node, name| node.field(name))
                .is_some()
        });
        match known {
            Some(fields) => fields.into_iter().map(str::to_string).collect(),
            None => {
                self.errors
                    .invalid(&at.child("fieldPath"), text, "must be a valid path");
                Vec::new()
            }
        }
    }
}

/// Why a rule's expression is refused.
enum Wrong {
    Expression(CompileError),
    /// It makes something else than it has to.
    Result,
}

/// What rules see, by name.
fn types(node: &Node, root: bool, optional_old_self: bool) -> [(&'static str, Type<'_>); 2] {
    let of = Type::of_schema(node, root || node.embedded).unwrap_or(Type::Dyn);
    let old = if optional_old_self {
        of.clone().optional()
    } else {
        of.clone()
    };
    [("self", of), ("oldSelf", old)]
}

/// The program of an expression, and what is wrong with it. One with wrong types only can still
/// run: it may have been accepted once by less strict rules.
fn compile(
    text: &str,
    names: &[Declared<'_>],
    types: &[(&str, Type<'_>)],
    wanted: &Type<'_>,
) -> (Option<Program>, Option<Wrong>) {
    let typed = match cel::type_of(text, types) {
        Ok(found) if found.is(wanted) => None,
        Ok(_) => Some(Wrong::Result),
        Err(error) => Some(Wrong::Expression(error)),
    };
    match Program::compile(text, names) {
        Ok(program) => (Some(program), typed),
        Err(error) => match typed {
            Some(Wrong::Expression(_)) => (None, typed),
            _ => (None, Some(Wrong::Expression(error))),
        },
    }
}
