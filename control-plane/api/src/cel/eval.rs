//! Evaluation, with a price on every step.

use std::rc::Rc;

use super::{
    Program,
    ast::{Binary, Expr, Kind, Literal, Loop, Macro},
    functions,
    value::{Map, Text, Value},
};

/// Bytes or elements of a text or list that cost as much as one step.
pub(super) const BYTES_PER_STEP: usize = 10;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// It costs more than there was left.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
    /// An operator or function is not made for such values.
    #[error("no such overload: {0}")]
    Overload(String),
    /// A map without such a key, or an object without such a field.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// Anything else: overflow, division by zero, an index out of bounds …
    #[error("{0}")]
    Failed(String),
}

/// A name and what it stands for, innermost first.
pub(super) struct Scope<'s, 'a> {
    name: &'s str,
    value: Value<'a>,
    outer: Option<&'s Scope<'s, 'a>>,
}

pub(super) type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(super) fn evaluate<'a>(
    program: &'a Program,
    names: &[(&str, Value<'a>)],
    budget: &mut u64,
) -> Outcome<'a> {
    let mut run = Run {
        program,
        names,
        left: *budget,
    };
    let outcome = run.eval(&program.root, None);
    *budget = run.left;
    outcome
}

/// One evaluation.
pub(super) struct Run<'r, 'a> {
    pub program: &'a Program,
    names: &'r [(&'r str, Value<'a>)],
    left: u64,
}

pub(super) fn failed(why: impl Into<String>) -> EvalError {
    EvalError::Failed(why.into())
}

impl<'a> Run<'_, 'a> {
    /// Takes the price of work on something of a size.
    pub(super) fn spend(&mut self, size: usize) -> Result<(), EvalError> {
        let price = u64::try_from(size / BYTES_PER_STEP).unwrap_or(u64::MAX);
        self.charge(price.saturating_add(1))
    }

    /// Takes a price.
    pub(super) fn charge(&mut self, steps: u64) -> Result<(), EvalError> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(EvalError::Cost)
            }
        }
    }

    pub(super) fn eval(&mut self, expr: &'a Expr, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        self.spend(0)?;
        match &expr.kind {
            Kind::Literal(literal) => Ok(constant(literal)),
            Kind::Ident(name) => self.name(name, scope),
            Kind::Select(operand, field, optional) => {
                let value = self.eval(operand, scope)?;
                self.select(value, field, *optional)
            }
            Kind::Has(operand, field) => match self.eval(operand, scope)? {
                Value::Map(map) => Ok(Value::Bool(map.field(field).is_some())),
                Value::Optional(Some(inner)) => match *inner {
                    Value::Map(map) => Ok(Value::Bool(map.field(field).is_some())),
                    _ => Ok(Value::Bool(false)),
                },
                Value::Optional(None) | Value::Null => Ok(Value::Bool(false)),
                other => Err(EvalError::Overload(format!("has({})", other.type_name()))),
            },
            Kind::Index(operand, index, optional) => {
                let value = self.eval(operand, scope)?;
                let index = self.eval(index, scope)?;
                self.index(value, &index, *optional)
            }
            Kind::Not(inner) => match self.eval(inner, scope)? {
                Value::Bool(value) => Ok(Value::Bool(!value)),
                other => Err(EvalError::Overload(format!("!_({})", other.type_name()))),
            },
            Kind::Negate(inner) => match self.eval(inner, scope)? {
                Value::Int(value) => value
                    .checked_neg()
                    .map(Value::Int)
                    .ok_or_else(|| failed("integer overflow")),
                Value::Double(value) => Ok(Value::Double(-value)),
                Value::Duration(value) => Ok(Value::Duration(-value)),
                other => Err(EvalError::Overload(format!("-_({})", other.type_name()))),
            },
            Kind::Binary(operator @ (Binary::And | Binary::Or), left, right) => {
                self.logic(*operator == Binary::Or, left, right, scope)
            }
            Kind::Binary(operator, left, right) => {
                let left = self.eval(left, scope)?;
                let right = self.eval(right, scope)?;
                self.binary(*operator, &left, &right)
            }
            Kind::Conditional(condition, yes, no) => match self.eval(condition, scope)? {
                Value::Bool(true) => self.eval(yes, scope),
                Value::Bool(false) => self.eval(no, scope),
                other => Err(EvalError::Overload(format!("_?_:_({})", other.type_name()))),
            },
            Kind::List(items) => self.list(items, scope),
            Kind::Map(entries) => self.map(entries, scope),
            Kind::Message(_, fields) => self.eval(fields, scope),
            Kind::Call(target, name, arguments) => {
                let mut values = Vec::with_capacity(arguments.len() + 1);
                if let Some(target) = target {
                    values.push(self.eval(target, scope)?);
                }
                for argument in arguments {
                    values.push(self.eval(argument, scope)?);
                }
                functions::call(self, name, target.is_some(), &values)
            }
            Kind::Loop(inner) => self.each(inner, scope),
            Kind::Bind(name, value, body) => {
                let value = self.eval(value, scope)?;
                let inner = Scope {
                    name,
                    value,
                    outer: scope,
                };
                self.eval(body, Some(&inner))
            }
            Kind::OptionalMap(target, name, body, flat) => match self.eval(target, scope)? {
                Value::Optional(None) => Ok(Value::Optional(None)),
                Value::Optional(Some(value)) => {
                    let inner = Scope {
                        name,
                        value: *value,
                        outer: scope,
                    };
                    let mapped = self.eval(body, Some(&inner))?;
                    Ok(if *flat {
                        mapped
                    } else {
                        Value::Optional(Some(Box::new(mapped)))
                    })
                }
                other => Err(EvalError::Overload(format!(
                    "optMap({})",
                    other.type_name()
                ))),
            },
        }
    }

    fn name(&self, name: &'a str, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        let mut here = scope;
        while let Some(found) = here {
            if found.name == name {
                return Ok(found.value.clone());
            }
            here = found.outer;
        }
        if let Some((_, value)) = self.names.iter().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        functions::type_by_name(name)
            .map(Value::Type)
            .ok_or_else(|| failed(format!("no such attribute: {name}")))
    }

    fn select(&mut self, value: Value<'a>, field: &str, optional: bool) -> Outcome<'a> {
        match value {
            Value::Map(map) => match (map.field(field), optional) {
                (Some(value), false) => Ok(value),
                (found, true) => Ok(Value::Optional(found.map(Box::new))),
                (None, false) => Err(EvalError::NoSuchKey(field.to_string())),
            },
            // Selecting on something that may be absent gives the like.
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => self.select(*inner, field, true),
            Value::Null if optional => Ok(Value::Optional(None)),
            other => match &other {
                Value::Check(check) => check.field(field),
                _ => None,
            }
            .ok_or_else(|| EvalError::Overload(format!("{}.{field}", other.type_name()))),
        }
    }

    fn index(&mut self, value: Value<'a>, index: &Value<'a>, optional: bool) -> Outcome<'a> {
        let found = match (value, index) {
            (Value::Optional(None), _) => return Ok(Value::Optional(None)),
            (Value::Optional(Some(inner)), index) => return self.index(*inner, index, true),
            (Value::List(list), index) => {
                let position = match index {
                    Value::Int(at) => usize::try_from(*at).ok(),
                    Value::Uint(at) => usize::try_from(*at).ok(),
                    other => {
                        return Err(EvalError::Overload(format!(
                            "_[_](list, {})",
                            other.type_name()
                        )));
                    }
                };
                let found = position.filter(|at| *at < list.len()).map(|at| list.at(at));
                found.ok_or_else(|| {
                    let index = index.to_text().unwrap_or_default();
                    failed(format!("index out of bounds: {index}"))
                })
            }
            (Value::Map(map), index) => map
                .get(index)
                .ok_or_else(|| EvalError::NoSuchKey(index.to_text().unwrap_or_default())),
            (other, index) => Err(EvalError::Overload(format!(
                "_[_]({}, {})",
                other.type_name(),
                index.type_name()
            ))),
        };
        if optional && !matches!(found, Err(EvalError::Overload(_))) {
            return Ok(Value::Optional(found.ok().map(Box::new)));
        }
        found
    }

    fn list(&mut self, items: &'a [(Expr, bool)], scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        let mut out = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.eval(item, scope)?, optional) {
                (Value::Optional(found), true) => out.extend(found.map(|value| *value)),
                (value, _) => out.push(value),
            }
        }
        Ok(Value::list(out))
    }

    fn map(
        &mut self,
        entries: &'a [(Expr, Expr, bool)],
        scope: Option<&Scope<'_, 'a>>,
    ) -> Outcome<'a> {
        let mut out: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.eval(key, scope)?;
            let value = match (self.eval(value, scope)?, optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(value)), true) => *value,
                (value, _) => value,
            };
            self.spend(out.len())?;
            if out.iter().any(|(known, _)| known.equals(&key)) {
                let key = key.to_text().unwrap_or_default();
                return Err(failed(format!("Failed with repeated key: {key}")));
            }
            out.push((key, value));
        }
        Ok(Value::Map(Map::Owned(Rc::new(out))))
    }

    /// What a macro goes over: index or key, and value.
    fn entries(&self, over: &Value<'a>) -> Result<Vec<(Value<'a>, Value<'a>)>, EvalError> {
        match over {
            Value::List(list) => Ok(list
                .iter()
                .enumerate()
                .map(|(at, value)| (Value::Int(i64::try_from(at).unwrap_or(i64::MAX)), value))
                .collect()),
            Value::Map(map) => Ok(map.entries().collect()),
            other => Err(EvalError::Overload(format!(
                "expected an iterable, found {}",
                other.type_name()
            ))),
        }
    }

    fn each(&mut self, each: &'a Loop, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        let over = self.eval(&each.over, scope)?;
        let is_list = matches!(over, Value::List(_));
        self.spend(over.size() * BYTES_PER_STEP)?;
        let mut state = Gathered::default();
        for (key, value) in self.entries(&over)? {
            let first = match (&each.second, is_list) {
                (None, true) => value.clone(),
                _ => key.clone(),
            };
            let outer = Scope {
                name: &each.first,
                value: first.clone(),
                outer: scope,
            };
            let inner;
            let scope = match &each.second {
                None => &outer,
                Some(name) => {
                    inner = Scope {
                        name,
                        value,
                        outer: Some(&outer),
                    };
                    &inner
                }
            };
            if let Some(filter) = &each.filter {
                match self.eval(filter, Some(scope))? {
                    Value::Bool(true) => {}
                    Value::Bool(false) => continue,
                    other => return Err(EvalError::Overload(other.type_name().to_string())),
                }
            }
            let outcome = self.eval(&each.body, Some(scope));
            if each.what == Macro::TransformMapEntry {
                let made = outcome?;
                self.spend(state.entries.len().saturating_mul(made.size()))?;
                state.insert(made)?;
            } else if state.take(each.what, outcome, first)? {
                break;
            }
        }
        state.finish(each.what)
    }
}

/// What a macro has found so far.
#[derive(Default)]
struct Gathered<'a> {
    items: Vec<Value<'a>>,
    entries: Vec<(Value<'a>, Value<'a>)>,
    count: usize,
    decided: bool,
    error: Option<EvalError>,
}

impl<'a> Gathered<'a> {
    /// True: the rest does not matter.
    fn take(
        &mut self,
        what: Macro,
        outcome: Outcome<'a>,
        first: Value<'a>,
    ) -> Result<bool, EvalError> {
        match what {
            Macro::All | Macro::Exists => {
                match outcome {
                    Ok(Value::Bool(value)) if value == (what == Macro::Exists) => {
                        self.decided = true;
                        return Ok(true);
                    }
                    Ok(Value::Bool(_)) => {}
                    Ok(other) => {
                        let error = EvalError::Overload(other.type_name().to_string());
                        self.error.get_or_insert(error);
                    }
                    Err(EvalError::Cost) => return Err(EvalError::Cost),
                    Err(error) => drop(self.error.get_or_insert(error)),
                }
                return Ok(false);
            }
            Macro::ExistsOne => self.count += usize::from(matches!(outcome?, Value::Bool(true))),
            Macro::Filter => {
                if let Value::Bool(true) = outcome? {
                    self.items.push(first);
                }
            }
            Macro::Map | Macro::TransformList => self.items.push(outcome?),
            Macro::TransformMap => self.entries.push((first, outcome?)),
            Macro::TransformMapEntry => self.insert(outcome?)?,
        }
        Ok(false)
    }

    /// The entries of a map that was made for one element.
    fn insert(&mut self, made: Value<'a>) -> Result<(), EvalError> {
        let Value::Map(map) = made else {
            return Err(EvalError::Overload(made.type_name().to_string()));
        };
        for (key, value) in map.entries() {
            if self.entries.iter().any(|(known, _)| known.equals(&key)) {
                let key = key.to_text().unwrap_or_default();
                return Err(failed(format!("insert failed: key {key} already exists")));
            }
            self.entries.push((key, value));
        }
        Ok(())
    }

    fn finish(self, what: Macro) -> Outcome<'a> {
        match what {
            Macro::All | Macro::Exists => match self.error {
                Some(error) if !self.decided => Err(error),
                _ => Ok(Value::Bool(self.decided == (what == Macro::Exists))),
            },
            Macro::ExistsOne => Ok(Value::Bool(self.count == 1)),
            Macro::Map | Macro::Filter | Macro::TransformList => Ok(Value::list(self.items)),
            Macro::TransformMap | Macro::TransformMapEntry => {
                Ok(Value::Map(Map::Owned(Rc::new(self.entries))))
            }
        }
    }
}

fn constant(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Borrowed(text)),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}
