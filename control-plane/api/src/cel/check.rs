//! What can be said of an expression without values: names, functions, fields, patterns.

use super::{
    CompileError, Declared,
    ast::{Expr, Literal, Macro},
    functions::{self, Known},
    pattern,
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
        match expr {
            Expr::Literal(_) => {}
            Expr::Ident(name) => return self.name(name, scope),
            Expr::Select(operand, field, _) | Expr::Has(operand, field) => {
                let shape = self.shape(operand, scope)?;
                let found = select(shape, field)?;
                return Ok(match expr {
                    Expr::Has(..) => Shape::Unknown,
                    _ => found,
                });
            }
            Expr::Index(operand, index, _) => {
                let shape = self.shape(operand, scope)?;
                self.shape(index, scope)?;
                return Ok(element(shape));
            }
            Expr::Not(inner) | Expr::Negate(inner) => drop(self.shape(inner, scope)?),
            Expr::Binary(_, left, right) => {
                self.shape(left, scope)?;
                self.shape(right, scope)?;
            }
            Expr::Conditional(condition, yes, no) => {
                each(&mut [condition, yes, no].into_iter().map(AsRef::as_ref))?;
            }
            Expr::List(items) => each(&mut items.iter().map(|(item, _)| item))?,
            Expr::Map(entries) => {
                each(&mut entries.iter().flat_map(|(key, value, _)| [key, value]))?;
            }
            Expr::Message(root, fields) => {
                self.name(root, None)?;
                self.shape(fields, scope)?;
            }
            Expr::Call(target, name, arguments) => {
                each(&mut target.iter().map(AsRef::as_ref).chain(arguments))?;
                call(target.is_some(), name, arguments)?;
                if let (Some(target), "format") = (target, name.as_str()) {
                    functions::format::check(target, arguments).map_err(CompileError::Format)?;
                }
            }
            Expr::Loop(inner) => {
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
            Expr::Bind(name, value, body) => {
                let shape = self.shape(value, scope)?;
                let inner = Scope {
                    name,
                    shape,
                    outer: scope,
                };
                return self.shape(body, Some(&inner));
            }
            Expr::OptionalMap(target, name, body, _) => {
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
    match functions::known(name, on_value, arguments.len()) {
        Known::Yes => {}
        Known::OtherArguments => return Err(CompileError::Arguments(name.to_string())),
        Known::No => return Err(CompileError::Undeclared(name.to_string())),
    }
    if matches!(name, "matches" | "find" | "findAll") {
        let text = arguments.get(usize::from(!on_value));
        if let Some(Expr::Literal(Literal::String(text))) = text {
            pattern(text).map_err(CompileError::Pattern)?;
        }
    }
    Ok(())
}

/// The expression uses a name that is not one of its own variables.
pub(super) fn uses(expr: &Expr, name: &str) -> bool {
    match expr {
        Expr::Literal(_) => false,
        Expr::Ident(found) => found == name,
        Expr::Select(inner, _, _)
        | Expr::Has(inner, _)
        | Expr::Not(inner)
        | Expr::Message(_, inner)
        | Expr::Negate(inner) => uses(inner, name),
        Expr::Index(a, b, _) | Expr::Binary(_, a, b) => uses(a, name) || uses(b, name),
        Expr::Conditional(a, b, c) => uses(a, name) || uses(b, name) || uses(c, name),
        Expr::List(items) => items.iter().any(|(item, _)| uses(item, name)),
        Expr::Map(entries) => entries
            .iter()
            .any(|(k, v, _)| uses(k, name) || uses(v, name)),
        Expr::Call(target, _, arguments) => {
            target.as_ref().is_some_and(|target| uses(target, name))
                || arguments.iter().any(|argument| uses(argument, name))
        }
        Expr::Loop(inner) => {
            let hidden = inner.first == name || inner.second.as_deref() == Some(name);
            uses(&inner.over, name)
                || !hidden
                    && (uses(&inner.body, name)
                        || inner
                            .filter
                            .as_ref()
                            .is_some_and(|filter| uses(filter, name)))
        }
        Expr::Bind(variable, value, body) => {
            uses(value, name) || variable != name && uses(body, name)
        }
        Expr::OptionalMap(target, variable, body, _) => {
            uses(target, name) || variable != name && uses(body, name)
        }
    }
}
