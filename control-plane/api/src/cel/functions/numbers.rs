//! `math.*`.

use std::cmp::Ordering;

use super::Outcome;
use crate::cel::{
    eval::failed,
    value::{List, Value},
};

pub(super) fn call<'a>(name: &str, values: &[Value<'a>]) -> Option<Outcome<'a>> {
    Some(match (name, values) {
        ("math.greatest", [Value::List(list)]) => extreme(list, Ordering::Greater)?,
        ("math.least", [Value::List(list)]) => extreme(list, Ordering::Less)?,
        ("math.greatest" | "math.least", values) => {
            let wanted = if name == "math.least" {
                Ordering::Less
            } else {
                Ordering::Greater
            };
            extreme(&List::Owned(std::rc::Rc::new(values.to_vec())), wanted)?
        }
        ("math.abs", [Value::Int(value)]) => value
            .checked_abs()
            .map(Value::Int)
            .ok_or_else(|| failed("integer overflow")),
        ("math.abs" | "math.sign", [Value::Uint(value)]) => Ok(Value::Uint(match name {
            "math.abs" => *value,
            _ => u64::from(*value > 0),
        })),
        ("math.sign", [Value::Int(value)]) => Ok(Value::Int(value.signum())),
        ("math.isNaN", [Value::Double(value)]) => Ok(Value::Bool(value.is_nan())),
        ("math.isInf", [Value::Double(value)]) => Ok(Value::Bool(value.is_infinite())),
        ("math.isFinite", [Value::Double(value)]) => Ok(Value::Bool(value.is_finite())),
        (_, [Value::Double(value)]) => Ok(Value::Double(match name {
            "math.abs" => value.abs(),
            "math.sign" if *value == 0.0 => 0.0,
            "math.sign" => value.signum(),
            "math.ceil" => value.ceil(),
            "math.floor" => value.floor(),
            "math.round" => value.round(),
            "math.trunc" => value.trunc(),
            _ => return None,
        })),
        _ => return None,
    })
}

fn extreme<'a>(list: &List<'a>, wanted: Ordering) -> Option<Outcome<'a>> {
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        if !matches!(item, Value::Int(_) | Value::Uint(_) | Value::Double(_)) {
            return None;
        }
        best = match best {
            Some(best) if item.order(&best) != Some(wanted) => Some(best),
            _ => Some(item),
        };
    }
    Some(best.ok_or_else(|| failed("math extreme of an empty list")))
}
