//! The walk that finds an expression's type.

use super::{
    Type, built_in,
    signatures::{AUTHORIZER, RESOURCE_CHECK, Signature, overloads},
};
use crate::cel::{
    ast::{Expr, Kind, Literal, Loop, Macro},
    functions,
    value::unescape,
};

/// Something that is wrong, and where, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cel) struct Issue {
    pub at: usize,
    pub text: String,
}

impl Issue {
    /// As cel-go shows it: the place, what is wrong, and the line with a mark under the place.
    pub(in crate::cel) fn show(&self, source: &str) -> String {
        let before = source.get(..self.at).unwrap_or(source);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[start..].chars().count();
        let number = before.matches('\n').count() + 1;
        let line = source[start..]
            .lines()
            .next()
            .unwrap_or("")
            .replace('\t', " ");
        format!(
            "ERROR: <input>:{number}:{}: {}\n | {line}\n | {}^",
            column + 1,
            self.text,
            ".".repeat(column)
        )
    }
}

/// The type of an expression that may use such names; what is wrong goes into `issues`.
pub(in crate::cel) fn infer<'n>(
    expr: &Expr,
    names: &[(&str, Type<'n>)],
    issues: &mut Vec<Issue>,
) -> Type<'n> {
    Checker { names, issues }.infer(expr, None)
}

/// Names of macros, innermost first.
struct Scope<'s, 'n> {
    name: &'s str,
    of: Type<'n>,
    outer: Option<&'s Scope<'s, 'n>>,
}

struct Checker<'c, 'n> {
    names: &'c [(&'c str, Type<'n>)],
    issues: &'c mut Vec<Issue>,
}

/// What parameters of a signature stand for.
#[derive(Default, Clone)]
struct Bindings<'n>(Vec<(char, Type<'n>)>);

impl<'n> Bindings<'n> {
    fn fits(&mut self, wanted: &Type<'n>, found: &Type<'n>) -> bool {
        match (wanted, found) {
            (Type::Parameter(name), found) => self.bind(*name, found),
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
                self.fits(a, b)
            }
            (Type::Map(a, x), Type::Map(b, y)) => self.fits(a, b) && self.fits(x, y),
            (Type::Null, other) | (other, Type::Null) if other.is_nullable() => true,
            (wanted, found) => wanted.is(found),
        }
    }

    fn bind(&mut self, name: char, found: &Type<'n>) -> bool {
        let Some(position) = self.0.iter().position(|(known, _)| *known == name) else {
            self.0.push((name, found.clone()));
            return true;
        };
        let known = self.0[position].1.clone();
        if !self.fits(&known, found) {
            return false;
        }
        self.0[position].1 = general(known, found.clone());
        true
    }

    fn resolve(&self, of: &Type<'n>) -> Type<'n> {
        match of {
            Type::Parameter(name) => {
                let bound = self.0.iter().find(|(known, _)| known == name);
                bound.map_or(Type::Dyn, |(_, found)| found.clone())
            }
            Type::List(item) => Type::list(self.resolve(item)),
            Type::Map(key, value) => Type::map(self.resolve(key), self.resolve(value)),
            Type::Optional(inner) => self.resolve(inner).optional(),
            other => other.clone(),
        }
    }
}

/// Of two types that fit each other the one that says less.
fn general<'n>(a: Type<'n>, b: Type<'n>) -> Type<'n> {
    match (&a, &b) {
        (Type::Dyn, _) | (_, Type::Dyn) => Type::Dyn,
        (Type::Null, _) => b,
        (Type::List(x), Type::List(y)) => Type::list(general((**x).clone(), (**y).clone())),
        (Type::Map(k, v), Type::Map(l, w)) => Type::map(
            general((**k).clone(), (**l).clone()),
            general((**v).clone(), (**w).clone()),
        ),
        _ => a,
    }
}

impl<'n> Checker<'_, 'n> {
    fn issue(&mut self, at: usize, text: String) -> Type<'n> {
        self.issues.push(Issue { at, text });
        Type::Dyn
    }

    fn infer(&mut self, expr: &Expr, scope: Option<&Scope<'_, 'n>>) -> Type<'n> {
        let at = expr.at;
        match &expr.kind {
            Kind::Literal(literal) => constant(literal),
            Kind::Ident(name) => self.name(name, at, scope),
            Kind::Select(operand, field, optional) => {
                let operand = self.infer(operand, scope);
                self.select(&operand, field, *optional, at)
            }
            Kind::Has(operand, field) => {
                let operand = self.infer(operand, scope);
                self.select(&operand, field, false, at);
                Type::Bool
            }
            Kind::Index(operand, index, optional) => {
                let takes = [self.infer(operand, scope), self.infer(index, scope)];
                let name = if *optional { "_[?_]" } else { "_[_]" };
                self.call(name, false, &takes, at)
            }
            Kind::Not(inner) => self.operator("!_", &[inner], at, scope),
            Kind::Negate(inner) => self.operator("-_", &[inner], at, scope),
            Kind::Binary(operator, left, right) => {
                self.operator(operator.symbol(), &[left, right], at, scope)
            }
            Kind::Conditional(condition, yes, no) => {
                self.operator("_?_:_", &[condition, yes, no], at, scope)
            }
            Kind::List(items) => self.list(items, true, scope),
            Kind::Map(entries) => self.map(entries, scope),
            Kind::Message(root, fields) => {
                self.name(root, at, None);
                // Fields are of different types.
                if let Kind::Map(entries) = &fields.kind {
                    for (_, value, _) in entries {
                        self.infer(value, scope);
                    }
                }
                Type::Dyn
            }
            Kind::Call(target, name, arguments) => {
                let mut takes = Vec::with_capacity(arguments.len() + 1);
                takes.extend(target.iter().map(|target| self.infer(target, scope)));
                for argument in arguments {
                    takes.push(match &argument.kind {
                        // Values to be written may be of different types.
                        Kind::List(items) if name == "format" => self.list(items, false, scope),
                        _ => self.infer(argument, scope),
                    });
                }
                self.call(name, target.is_some(), &takes, at)
            }
            Kind::Loop(inner) => self.each(inner, at, scope),
            Kind::Bind(name, value, body) => {
                let of = self.infer(value, scope);
                self.infer(
                    body,
                    Some(&Scope {
                        name,
                        of,
                        outer: scope,
                    }),
                )
            }
            Kind::OptionalMap(target, name, body, flat) => {
                let of = match self.infer(target, scope) {
                    Type::Optional(inner) => (*inner).clone(),
                    Type::Dyn => Type::Dyn,
                    other => {
                        let method = if *flat { "optFlatMap" } else { "optMap" };
                        self.issue(
                            at,
                            format!(
                                "found no matching overload for '{method}' applied to '{other}'"
                            ),
                        )
                    }
                };
                let made = self.infer(
                    body,
                    Some(&Scope {
                        name,
                        of,
                        outer: scope,
                    }),
                );
                made.optional()
            }
        }
    }

    fn operator(
        &mut self,
        name: &str,
        operands: &[&Expr],
        at: usize,
        scope: Option<&Scope<'_, 'n>>,
    ) -> Type<'n> {
        let takes: Vec<_> = operands.iter().map(|one| self.infer(one, scope)).collect();
        self.call(name, false, &takes, at)
    }

    fn name(&mut self, name: &str, at: usize, scope: Option<&Scope<'_, 'n>>) -> Type<'n> {
        let mut here = scope;
        while let Some(found) = here {
            if found.name == name {
                return found.of.clone();
            }
            here = found.outer;
        }
        if let Some((_, of)) = self.names.iter().find(|(known, _)| *known == name) {
            return of.clone();
        }
        match functions::type_by_name(name) {
            Some(_) => Type::Type,
            None => self.issue(at, undeclared(name)),
        }
    }

    fn select(&mut self, operand: &Type<'n>, field: &str, optional: bool, at: usize) -> Type<'n> {
        let (holder, was_optional) = match operand {
            Type::Optional(inner) => (&**inner, true),
            other => (other, false),
        };
        let found = match holder {
            Type::Dyn => Some(Type::Dyn),
            Type::Map(_, value) => Some((**value).clone()),
            Type::Object(node, is_root) => Type::of_field(node, *is_root, field),
            Type::BuiltIn(id) => built_in::field(*id, &unescape(field)),
            Type::Record(record) => {
                let name = unescape(field);
                let found = record.fields.iter().find(|(known, _)| *known == name);
                found.map(|(_, of)| of.clone())
            }
            Type::Opaque(AUTHORIZER) if field == "requestResource" => {
                Some(Type::Opaque(RESOURCE_CHECK))
            }
            other => {
                let text = format!("type '{other}' does not support field selection");
                return self.issue(at, text);
            }
        };
        let found = match found {
            Some(found) => found,
            None => self.issue(at, format!("undefined field '{field}'")),
        };
        if optional || was_optional {
            return found.optional();
        }
        found
    }

    fn call(&mut self, name: &str, on_value: bool, takes: &[Type<'n>], at: usize) -> Type<'n> {
        let overloads = overloads(name);
        if overloads.is_empty() {
            return self.issue(at, undeclared(name));
        }
        let mut made: Option<Type<'n>> = None;
        for overload in overloads.iter().filter(|one| one.on_value == on_value) {
            let Some(found) = applied(overload, takes) else {
                continue;
            };
            made = Some(match made {
                Some(before) if !before.is(&found) => Type::Dyn,
                _ => found,
            });
        }
        made.unwrap_or_else(|| {
            let shown: Vec<String> = takes.iter().map(ToString::to_string).collect();
            let shown = match shown.split_first() {
                Some((target, rest)) if on_value => format!("{target}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let text = format!("found no matching overload for '{name}' applied to '{shown}'");
            self.issue(at, text)
        })
    }

    /// Elements or entries are of one type, or of none that is known.
    fn joined(&mut self, before: Option<Type<'n>>, found: Type<'n>, at: usize) -> Option<Type<'n>> {
        let Some(before) = before else {
            return Some(found);
        };
        if !Bindings::default().fits(&before, &found) {
            self.issue(at, mismatch(&before, &found));
            return Some(Type::Dyn);
        }
        Some(general(before, found))
    }

    /// What an optional entry holds.
    fn unwrapped(&mut self, found: Type<'n>, optional: bool, at: usize) -> Type<'n> {
        match found {
            Type::Optional(inner) if optional => (*inner).clone(),
            Type::Dyn => Type::Dyn,
            other if optional => self.issue(at, mismatch(&Type::Dyn.optional(), &other)),
            other => other,
        }
    }

    fn list(
        &mut self,
        items: &[(Expr, bool)],
        of_one_type: bool,
        scope: Option<&Scope<'_, 'n>>,
    ) -> Type<'n> {
        let mut of = None;
        for (item, optional) in items {
            let found = self.infer(item, scope);
            let found = self.unwrapped(found, *optional, item.at);
            of = if of_one_type {
                self.joined(of, found, item.at)
            } else {
                Some(Type::Dyn)
            };
        }
        Type::list(of.unwrap_or(Type::Dyn))
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)], scope: Option<&Scope<'_, 'n>>) -> Type<'n> {
        let (mut keys, mut values) = (None, None);
        for (key, value, optional) in entries {
            let found = self.infer(key, scope);
            keys = self.joined(keys, found, key.at);
            let found = self.infer(value, scope);
            let found = self.unwrapped(found, *optional, value.at);
            values = self.joined(values, found, value.at);
        }
        Type::map(keys.unwrap_or(Type::Dyn), values.unwrap_or(Type::Dyn))
    }

    fn each(&mut self, each: &Loop, at: usize, scope: Option<&Scope<'_, 'n>>) -> Type<'n> {
        let over = self.infer(&each.over, scope);
        let (key, value, single) = match &over {
            Type::List(item) => (Type::Int, (**item).clone(), (**item).clone()),
            Type::Map(key, value) => ((**key).clone(), (**value).clone(), (**key).clone()),
            Type::Dyn => (Type::Dyn, Type::Dyn, Type::Dyn),
            other => {
                let text = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(each.over.at, text);
                (Type::Dyn, Type::Dyn, Type::Dyn)
            }
        };
        let of = match &each.second {
            None => single.clone(),
            Some(_) => key.clone(),
        };
        let first = Scope {
            name: &each.first,
            of,
            outer: scope,
        };
        let second = each.second.as_ref().map(|name| Scope {
            name,
            of: value,
            outer: Some(&first),
        });
        let inner = Some(second.as_ref().unwrap_or(&first));
        if let Some(filter) = &each.filter {
            let found = self.infer(filter, inner);
            self.condition("_?_:_", &found, filter.at);
        }
        let body = self.infer(&each.body, inner);
        match each.what {
            Macro::All => self.condition("_&&_", &body, at),
            Macro::Exists => self.condition("_||_", &body, at),
            Macro::ExistsOne => self.condition("_?_:_", &body, at),
            Macro::Filter => {
                self.condition("_?_:_", &body, at);
                return Type::list(single);
            }
            Macro::Map | Macro::TransformList => return Type::list(body),
            Macro::TransformMap => return Type::map(key, body),
            Macro::TransformMapEntry => return body,
        }
        Type::Bool
    }

    /// What macros ask is a bool; `name` is the operator that they are made of.
    fn condition(&mut self, name: &str, found: &Type<'n>, at: usize) {
        if !matches!(found, Type::Bool | Type::Dyn) {
            let shown = match name {
                "_?_:_" => format!("({found}, dyn, dyn)"),
                _ => format!("(bool, {found})"),
            };
            self.issue(
                at,
                format!("found no matching overload for '{name}' applied to '{shown}'"),
            );
        }
    }
}

/// What an overload makes of such values; `None`: it is not made for them.
fn applied<'n>(overload: &Signature, takes: &[Type<'n>]) -> Option<Type<'n>> {
    if !overload.takes_so_many(takes.len()) {
        return None;
    }
    let mut bindings = Bindings::default();
    for (place, found) in takes.iter().enumerate() {
        if !bindings.fits(overload.at(place)?, found) {
            return None;
        }
    }
    Some(bindings.resolve(&overload.makes))
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

fn mismatch(expected: &Type<'_>, found: &Type<'_>) -> String {
    format!("expected type '{expected}' but found '{found}'")
}

fn constant<'n>(literal: &Literal) -> Type<'n> {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
