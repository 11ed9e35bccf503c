//! What can be said of an expression without values: names, functions, fields, patterns.

use super::{
    CompileError, Declared,
    ast::{Expr, Kind, Literal, Macro},
    functions, pattern,
    types::{self, Known},
    value::unescape,
};
use crate::custom::{Additional, Node, ValueType};

/// Names in scope, innermost first.
struct Scope<'s, 'n> {
    name: &'s str,
    shape: Shape<'n>,
    outer: Option<&'s Scope<'s, 'n>>,
}

/// What is known of a value.
#[derive(Clone, Copy)]
enum Shape<'n> {
    Unknown,
    Node(&'n Node),
    /// The root of a resource.
    Resource(&'n Node),
}

pub(super) fn check(expr: &Expr, names: &[Declared<'_>]) -> Result<(), CompileError> {
    Checker { names }.shape(expr, None).map(drop)
}

struct Checker<'c, 'n> {
    names: &'c [Declared<'n>],
}

impl<'n> Checker<'_, 'n> {
    fn shape(&self, expr: &Expr, scope: Option<&Scope<'_, 'n>>) -> Result<Shape<'n>, CompileError> {
        let each = |exprs: &mut dyn Iterator<Item = &Expr>| -> Result<(), CompileError> {
            for expr in exprs {
                self.shape(expr, scope)?;
            }
            Ok(())
        };
        match &expr.kind {
            Kind::Literal(_) => {}
            Kind::Ident(name) => return self.name(name, scope),
            Kind::Select(operand, field, _) | Kind::Has(operand, field) => {
                let shape = self.shape(operand, scope)?;
                let found = select(shape, field)?;
                return Ok(match &expr.kind {
                    Kind::Has(..) => Shape::Unknown,
                    _ => found,
                });
            }
            Kind::Index(operand, index, _) => {
                let shape = self.shape(operand, scope)?;
                self.shape(index, scope)?;
                return Ok(element(shape));
            }
            Kind::Not(inner) | Kind::Negate(inner) => drop(self.shape(inner, scope)?),
            Kind::Binary(_, left, right) => {
                self.shape(left, scope)?;
                self.shape(right, scope)?;
            }
            Kind::Conditional(condition, yes, no) => {
                each(&mut [condition, yes, no].into_iter().map(AsRef::as_ref))?;
            }
            Kind::List(items) => each(&mut items.iter().map(|(item, _)| item))?,
            Kind::Map(entries) => {
                each(&mut entries.iter().flat_map(|(key, value, _)| [key, value]))?;
            }
            Kind::Message(root, fields) => {
                self.name(root, None)?;
                self.shape(fields, scope)?;
            }
            Kind::Call(target, name, arguments) => {
                each(&mut target.iter().map(AsRef::as_ref).chain(arguments))?;
                call(target.is_some(), name, arguments)?;
                if let (Some(target), "format") = (target, name.as_str()) {
                    functions::format::check(target, arguments).map_err(CompileError::Format)?;
                }
            }
            Kind::Loop(inner) => {
                let over = self.shape(&inner.over, scope)?;
                let is_map =
                    matches!(over, Shape::Node(node) if node.value_type == Some(ValueType::Object));
                let value = element(over);
                let single = match (is_map, inner.second.is_some()) {
                    (false, false) => value,
                    _ => Shape::Unknown,
                };
                let outer = Scope {
                    name: &inner.first,
                    shape: single,
                    outer: scope,
                };
                let second = inner.second.as_ref().map(|name| Scope {
                    name,
                    shape: value,
                    outer: Some(&outer),
                });
                let scope = Some(second.as_ref().unwrap_or(&outer));
                if let Some(filter) = &inner.filter {
                    self.shape(filter, scope)?;
                }
                self.shape(&inner.body, scope)?;
                return Ok(match inner.what {
                    Macro::Filter if !is_map => over,
                    _ => Shape::Unknown,
                });
            }
            Kind::Bind(name, value, body) => {
                let shape = self.shape(value, scope)?;
                let inner = Scope {
                    name,
                    shape,
                    outer: scope,
                };
                return self.shape(body, Some(&inner));
            }
            Kind::OptionalMap(target, name, body, _) => {
                let shape = self.shape(target, scope)?;
                let inner = Scope {
                    name,
                    shape,
                    outer: scope,
                };
                self.shape(body, Some(&inner))?;
            }
        }
        Ok(Shape::Unknown)
    }

    fn name(&self, name: &str, scope: Option<&Scope<'_, 'n>>) -> Result<Shape<'n>, CompileError> {
        let mut here = scope;
        while let Some(found) = here {
            if found.name == name {
                return Ok(found.shape);
            }
            here = found.outer;
        }
        if let Some(declared) = self.names.iter().find(|known| known.name == name) {
            return Ok(match declared.schema {
                None => Shape::Unknown,
                Some(node) if declared.is_resource => Shape::Resource(node),
                Some(node) => Shape::Node(node),
            });
        }
        match functions::type_by_name(name) {
            Some(_) => Ok(Shape::Unknown),
            None => Err(CompileError::Undeclared(name.to_string())),
        }
    }
}

fn select<'n>(shape: Shape<'n>, field: &str) -> Result<Shape<'n>, CompileError> {
    let (node, is_root) = match shape {
        Shape::Unknown => return Ok(Shape::Unknown),
        Shape::Node(node) => (node, node.embedded),
        Shape::Resource(node) => (node, true),
    };
    let name = unescape(field);
    if is_root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
        return Ok(Shape::Unknown);
    }
    if let Some(inner) = node.field(&name).or_else(|| node.field(field)) {
        return Ok(Shape::Node(inner));
    }
    if node.value_type.is_none() {
        return Ok(Shape::Unknown);
    }
    // What the schema does not say is not seen by rules, even where it is preserved.
    Err(CompileError::UndefinedField(field.to_string()))
}

/// The elements of a list, the values of a map.
fn element(shape: Shape<'_>) -> Shape<'_> {
    let Shape::Node(node) = shape else {
        return Shape::Unknown;
    };
    match (&node.items, &node.additional) {
        (Some(items), _) => Shape::Node(items),
        (None, Additional::Schema(values)) => Shape::Node(values),
        _ => Shape::Unknown,
    }
}

fn call(on_value: bool, name: &str, arguments: &[Expr]) -> Result<(), CompileError> {
    match types::known(name, on_value, arguments.len()) {
        Known::Yes => {}
        Known::OtherArguments => return Err(CompileError::Arguments(name.to_string())),
        Known::No => return Err(CompileError::Undeclared(name.to_string())),
    }
    if matches!(name, "matches" | "find" | "findAll") {
        let text = arguments.get(usize::from(!on_value));
        if let Some(Kind::Literal(Literal::String(text))) = text.map(|text| &text.kind) {
            pattern(text).map_err(CompileError::Pattern)?;
        }
    }
    Ok(())
}

/// The expression uses a name that is not one of its own variables.
pub(super) fn uses(expr: &Expr, name: &str) -> bool {
    match &expr.kind {
        Kind::Literal(_) => false,
        Kind::Ident(found) => found == name,
        Kind::Select(inner, _, _)
        | Kind::Has(inner, _)
        | Kind::Not(inner)
        | Kind::Message(_, inner)
        | Kind::Negate(inner) => uses(inner, name),
        Kind::Index(a, b, _) | Kind::Binary(_, a, b) => uses(a, name) || uses(b, name),
        Kind::Conditional(a, b, c) => uses(a, name) || uses(b, name) || uses(c, name),
        Kind::List(items) => items.iter().any(|(item, _)| uses(item, name)),
        Kind::Map(entries) => entries
            .iter()
            .any(|(k, v, _)| uses(k, name) || uses(v, name)),
        Kind::Call(target, _, arguments) => {
            target.as_ref().is_some_and(|target| uses(target, name))
                || arguments.iter().any(|argument| uses(argument, name))
        }
        Kind::Loop(inner) => {
            let hidden = inner.first == name || inner.second.as_deref() == Some(name);
            uses(&inner.over, name)
                || !hidden
                    && (uses(&inner.body, name)
                        || inner
                            .filter
                            .as_ref()
                            .is_some_and(|filter| uses(filter, name)))
        }
        Kind::Bind(variable, value, body) => {
            uses(value, name) || variable != name && uses(body, name)
        }
        Kind::OptionalMap(target, variable, body, _) => {
            uses(target, name) || variable != name && uses(body, name)
        }
    }
}
