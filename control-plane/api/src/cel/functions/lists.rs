//! Functions on lists, and on lists as sets.

use std::cmp::Ordering;

use super::{Outcome, convert};
use crate::cel::{
    eval::{EvalError, Run, failed},
    value::{List, Value},
};

/// Deepest flattening.
const MAX_FLATTEN: i64 = 16;

fn position(value: Option<usize>) -> Value<'static> {
    Value::Int(value.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

pub(super) fn call<'a>(
    run: &mut Run<'_, 'a>,
    name: &str,
    list: &List<'a>,
    arguments: &[Value<'a>],
) -> Option<Outcome<'a>> {
    // Work on every element, or on every pair of them.
    let pairs = matches!(name, "distinct" | "sort");
    let work = if pairs {
        list.len().saturating_mul(list.len())
    } else {
        list.len()
    };
    if let Err(error) = run.spend(work.saturating_mul(10)) {
        return Some(Err(error));
    }
    Some(match (name, arguments) {
        ("size", []) => Ok(convert::size(&Value::List(list.clone()))?),
        ("contains", [value]) => Ok(Value::Bool(list.iter().any(|item| item.equals(value)))),
        ("indexOf", [value]) => Ok(position(list.iter().position(|item| item.equals(value)))),
        ("lastIndexOf", [value]) => Ok(position(
            (0..list.len()).rev().find(|at| list.at(*at).equals(value)),
        )),
        ("isSorted", []) => {
            Ok(Value::Bool((1..list.len()).all(|at| {
                list.at(at - 1).order(&list.at(at)) != Some(Ordering::Greater)
            })))
        }
        ("sum", []) => sum(list)?,
        ("min", []) => extreme(list, Ordering::Less)?,
        ("max", []) => extreme(list, Ordering::Greater)?,
        ("join", []) => join(run, list, "")?,
        ("join", [Value::String(separator)]) => join(run, list, separator.as_str())?,
        ("reverse", []) => Ok(Value::list(
            (0..list.len()).rev().map(|at| list.at(at)).collect(),
        )),
        ("distinct", []) => {
            let mut out: Vec<Value<'a>> = Vec::new();
            for item in list.iter() {
                if !out.iter().any(|known| known.equals(&item)) {
                    out.push(item);
                }
            }
            Ok(Value::list(out))
        }
        ("slice", [Value::Int(from), Value::Int(to)]) => slice(list, *from, *to),
        ("sort", []) => {
            let mut items: Vec<Value<'a>> = list.iter().collect();
            items.sort_by(|a, b| a.order(b).unwrap_or(Ordering::Equal));
            Ok(Value::list(items))
        }
        ("first", []) => Ok(optional(list.iter().next())),
        ("last", []) => Ok(optional(list.iter().last())),
        ("unwrapOpt", []) => unwrap(list)?,
        ("flatten", []) => flatten(run, list, 1),
        ("flatten", [Value::Int(depth)]) if (0..=MAX_FLATTEN).contains(depth) => {
            flatten(run, list, *depth)
        }
        _ => return None,
    })
}

fn optional(value: Option<Value<'_>>) -> Value<'_> {
    Value::Optional(value.map(Box::new))
}

/// The values that are there, of a list of values that may be absent.
fn unwrap<'a>(list: &List<'a>) -> Option<Outcome<'a>> {
    let mut out = Vec::new();
    for item in list.iter() {
        let Value::Optional(found) = item else {
            return None;
        };
        out.extend(found.map(|value| *value));
    }
    Some(Ok(Value::list(out)))
}

fn sum<'a>(list: &List<'a>) -> Option<Outcome<'a>> {
    let overflow = || Some(Err(failed("integer overflow")));
    let mut items = list.iter();
    let Some(mut total) = items.next() else {
        return Some(Ok(Value::Int(0)));
    };
    for item in items {
        total = match (total, item) {
            (Value::Int(a), Value::Int(b)) => match a.checked_add(b) {
                Some(sum) => Value::Int(sum),
                None => return overflow(),
            },
            (Value::Uint(a), Value::Uint(b)) => match a.checked_add(b) {
                Some(sum) => Value::Uint(sum),
                None => return overflow(),
            },
            (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
            (Value::Duration(a), Value::Duration(b)) => match a.checked_add(b) {
                Some(sum) => Value::Duration(sum),
                None => return overflow(),
            },
            _ => return None,
        };
    }
    Some(Ok(total))
}

fn extreme<'a>(list: &List<'a>, wanted: Ordering) -> Option<Outcome<'a>> {
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        best = match best {
            None => Some(item),
            Some(best) if item.order(&best)? == wanted => Some(item),
            best => best,
        };
    }
    let name = if wanted == Ordering::Less {
        "min"
    } else {
        "max"
    };
    Some(best.ok_or_else(|| failed(format!("{name} called on empty list"))))
}

fn join<'a>(run: &mut Run<'_, 'a>, list: &List<'a>, separator: &str) -> Option<Outcome<'a>> {
    let mut out = String::new();
    for (at, item) in list.iter().enumerate() {
        let Value::String(text) = item else {
            return None;
        };
        if at > 0 {
            out.push_str(separator);
        }
        if let Err(error) = run.spend(separator.len() + text.as_str().len()) {
            return Some(Err(error));
        }
        out.push_str(text.as_str());
    }
    Some(Ok(Value::owned(out)))
}

fn slice<'a>(list: &List<'a>, from: i64, to: i64) -> Outcome<'a> {
    match (usize::try_from(from), usize::try_from(to)) {
        (Ok(from), Ok(to)) if from <= to && to <= list.len() => {
            Ok(Value::list((from..to).map(|at| list.at(at)).collect()))
        }
        _ => Err(failed(format!(
            "cannot slice({from}, {to}), list is length {}",
            list.len()
        ))),
    }
}

fn flatten<'a>(run: &mut Run<'_, 'a>, list: &List<'a>, depth: i64) -> Outcome<'a> {
    let mut items: Vec<Value<'a>> = list.iter().collect();
    for _ in 0..depth {
        let mut next = Vec::with_capacity(items.len());
        for item in items {
            run.spend(item.size().saturating_mul(10))?;
            match item {
                Value::List(inner) => next.extend(inner.iter()),
                other => next.push(other),
            }
        }
        items = next;
    }
    Ok(Value::list(items))
}

/// `sets.contains`, `sets.equivalent`, `sets.intersects`.
pub(super) fn sets<'a>(
    run: &mut Run<'_, 'a>,
    name: &str,
    values: &[Value<'a>],
) -> Option<Outcome<'a>> {
    let [Value::List(a), Value::List(b)] = values else {
        return None;
    };
    if let Err(error) = run.spend(a.len().saturating_mul(b.len()).saturating_mul(10)) {
        return Some(Err(error));
    }
    let holds = |outer: &List<'a>, inner: &List<'a>| {
        inner
            .iter()
            .all(|item| outer.iter().any(|other| other.equals(&item)))
    };
    let result = match name {
        "sets.contains" => holds(a, b),
        "sets.equivalent" => holds(a, b) && holds(b, a),
        "sets.intersects" => a
            .iter()
            .any(|item| b.iter().any(|other| other.equals(&item))),
        _ => return None,
    };
    Some(Ok::<_, EvalError>(Value::Bool(result)))
}
