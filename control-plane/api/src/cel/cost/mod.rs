//! What an expression may cost at most, told before there are values: from the sizes that a
//! schema allows, and else from those that fit into a request (Kubernetes' limits and prices).
//!
//! Where Kubernetes knows nothing of a text's size and takes it to be without limits, the size of a
//! request is the limit here: no estimate is above Kubernetes'.

mod calls;
mod sizes;

use super::{
    CompileError, MAX_BYTES,
    ast::{Binary, Expr, Kind, Literal, Loop, Macro},
    parser,
};

pub use sizes::{MAX_REQUEST_BYTES, Size, smallest_bytes};

/// What one rule may cost at most; Kubernetes' limit.
pub const RULE_LIMIT: u64 = 10_000_000;
/// What all rules of a definition's version may cost together; Kubernetes' limit.
pub const DEFINITION_LIMIT: u64 = 100_000_000;

const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const MESSAGE_COST: u64 = 40;

/// The most that an expression that may use such names costs.
///
/// # Errors
/// When the text is no expression.
pub fn most_cost(source: &str, names: &[(&str, Size<'_>)]) -> Result<u64, CompileError> {
    if source.len() > MAX_BYTES {
        return Err(CompileError::TooLong);
    }
    let root = parser::parse(source)?;
    Ok(Estimator { names }.estimate(&root, None).cost)
}

/// What one part of an expression costs, and the size of what it makes.
struct Estimate<'n> {
    cost: u64,
    size: Size<'n>,
}

impl<'n> Estimate<'n> {
    fn of(cost: u64, size: Size<'n>) -> Self {
        Estimate { cost, size }
    }

    fn scalar(cost: u64) -> Self {
        Estimate::of(cost, Size::scalar())
    }
}

struct Scope<'s, 'n> {
    name: &'s str,
    size: Size<'n>,
    outer: Option<&'s Scope<'s, 'n>>,
}

struct Estimator<'e, 'n> {
    names: &'e [(&'e str, Size<'n>)],
}

/// Going over a text of a size.
fn traversal(size: u64) -> u64 {
    size.div_ceil(10)
}

fn sum(costs: &[u64]) -> u64 {
    costs.iter().fold(0, |sum, cost| sum.saturating_add(*cost))
}

impl<'n> Estimator<'_, 'n> {
    fn estimate(&self, expr: &Expr, scope: Option<&Scope<'_, 'n>>) -> Estimate<'n> {
        let walk = |expr: &Expr| self.estimate(expr, scope);
        match &expr.kind {
            Kind::Literal(literal) => Estimate::of(0, constant(literal)),
            Kind::Ident(name) => Estimate::of(1, self.name(name, scope)),
            Kind::Select(operand, field, _) => {
                let operand = walk(operand);
                let price = u64::from(operand.size.has_parts());
                Estimate::of(
                    operand.cost.saturating_add(price),
                    operand.size.field(field),
                )
            }
            Kind::Has(operand, _) => Estimate::scalar(walk(operand).cost),
            Kind::Index(operand, index, _) => {
                let (operand, index) = (walk(operand), walk(index));
                let cost = sum(&[operand.cost, index.cost, 1]);
                Estimate::of(cost, operand.size.value())
            }
            Kind::Not(inner) | Kind::Negate(inner) => {
                Estimate::scalar(walk(inner).cost.saturating_add(1))
            }
            Kind::Binary(operator, left, right) => binary(*operator, walk(left), walk(right)),
            Kind::Conditional(condition, yes, no) => {
                let (condition, yes, no) = (walk(condition), walk(yes), walk(no));
                let cost = condition.cost.saturating_add(yes.cost.max(no.cost));
                Estimate::of(cost, yes.size.union(no.size))
            }
            Kind::List(items) => {
                let items: Vec<_> = items.iter().map(|(item, _)| walk(item)).collect();
                let cost = items
                    .iter()
                    .fold(LIST_COST, |sum, one| sum.saturating_add(one.cost));
                Estimate::of(cost, Size::list_of(items.into_iter().map(|one| one.size)))
            }
            Kind::Map(entries) => {
                let mut cost = MAP_COST;
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for (key, value, _) in entries {
                    let (key, value) = (walk(key), walk(value));
                    cost = sum(&[cost, key.cost, value.cost]);
                    keys.push(key.size);
                    values.push(value.size);
                }
                Estimate::of(cost, Size::map_of(keys, values))
            }
            Kind::Message(_, fields) => {
                let fields = walk(fields).cost.saturating_sub(MAP_COST);
                Estimate::of(fields.saturating_add(MESSAGE_COST), Size::unknown())
            }
            Kind::Call(target, name, arguments) => {
                let target = target.as_ref().map(|target| walk(target));
                let arguments: Vec<_> = arguments.iter().map(walk).collect();
                calls::call(name, target, arguments)
            }
            Kind::Loop(each) => self.each(each, scope),
            Kind::Bind(name, value, body) => {
                let value = walk(value);
                let size = value.size;
                let body = self.estimate(
                    body,
                    Some(&Scope {
                        name,
                        size,
                        outer: scope,
                    }),
                );
                let cost = sum(&[LIST_COST, value.cost, body.cost]);
                Estimate::of(cost, body.size)
            }
            Kind::OptionalMap(target, name, body, _) => {
                let target = walk(target);
                let size = target.size;
                let body = self.estimate(
                    body,
                    Some(&Scope {
                        name,
                        size,
                        outer: scope,
                    }),
                );
                // The target is asked whether it is there, and taken.
                let cost = sum(&[LIST_COST, 4, target.cost, target.cost, body.cost]);
                Estimate::of(cost, body.size)
            }
        }
    }

    fn name(&self, name: &str, scope: Option<&Scope<'_, 'n>>) -> Size<'n> {
        let mut here = scope;
        while let Some(found) = here {
            if found.name == name {
                return found.size.clone();
            }
            here = found.outer;
        }
        let known = self.names.iter().find(|(known, _)| *known == name);
        known.map_or_else(Size::scalar, |(_, size)| size.clone())
    }

    /// A macro: what it is made of is done for each element.
    fn each(&self, each: &Loop, scope: Option<&Scope<'_, 'n>>) -> Estimate<'n> {
        let over = self.estimate(&each.over, scope);
        let (key, value) = (over.size.key(), over.size.value());
        let single = if over.size.is_map() {
            key.clone()
        } else {
            value.clone()
        };
        let first = Scope {
            name: &each.first,
            size: if each.second.is_some() {
                key.clone()
            } else {
                single.clone()
            },
            outer: scope,
        };
        let second = each.second.as_ref().map(|name| Scope {
            name,
            size: value,
            outer: Some(&first),
        });
        let inner = Some(second.as_ref().unwrap_or(&first));
        let filter = each.filter.as_ref();
        let filter = filter.map_or(0, |filter| self.estimate(filter, inner).cost);
        let body = self.estimate(&each.body, inner);
        let count = over.size.most;
        // For each element: whether to go on, and the step; then the beginning and the result.
        let (step, rest, size) = match each.what {
            Macro::All => (3, 1, Size::scalar()),
            Macro::Exists => (4, 1, Size::scalar()),
            Macro::ExistsOne => (2, 2, Size::scalar()),
            Macro::Map | Macro::TransformList => {
                (2 + LIST_COST, 1 + LIST_COST, Size::list(count, body.size))
            }
            Macro::Filter => (3 + LIST_COST, 1 + LIST_COST, Size::list(count, single)),
            Macro::TransformMap => (3, 1 + MAP_COST, Size::map(count, key, body.size)),
            Macro::TransformMapEntry => {
                let (key, value) = (body.size.key(), body.size.value());
                (3, 1 + MAP_COST, Size::map(count, key, value))
            }
        };
        let step = sum(&[step, filter, body.cost]);
        let cost = sum(&[over.cost, rest, count.saturating_mul(step)]);
        Estimate::of(cost, size)
    }
}

fn binary<'n>(operator: Binary, left: Estimate<'n>, right: Estimate<'n>) -> Estimate<'n> {
    let operands = left.cost.saturating_add(right.cost);
    let (a, b) = (&left.size, &right.size);
    match operator {
        Binary::And | Binary::Or => Estimate::scalar(operands),
        Binary::Equal | Binary::NotEqual => {
            Estimate::scalar(operands.saturating_add(traversal(a.most.min(b.most))))
        }
        Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual
            if a.is_text() && b.is_text() =>
        {
            Estimate::scalar(operands.saturating_add(traversal(a.most.min(b.most))))
        }
        Binary::In if !b.is_map() => Estimate::scalar(operands.saturating_add(b.most)),
        Binary::Add if a.is_list() || b.is_list() => {
            let most = a.most.saturating_add(b.most);
            let size = Size::list(most, a.value().union(b.value()));
            Estimate::of(operands.saturating_add(1), size)
        }
        Binary::Add if a.is_text() || b.is_text() => {
            let most = a.most.saturating_add(b.most);
            let cost = operands.saturating_add(traversal(most));
            Estimate::of(cost, Size::text(most))
        }
        _ => Estimate::scalar(operands.saturating_add(1)),
    }
}

fn constant<'n>(literal: &Literal) -> Size<'n> {
    let exactly = |count: usize| Size::text_of(u64::try_from(count).unwrap_or(u64::MAX));
    match literal {
        Literal::String(text) => exactly(text.chars().count()),
        Literal::Bytes(bytes) => exactly(bytes.len()),
        _ => Size::scalar(),
    }
}

#[cfg(test)]
mod tests;
