//! Functions on Kubernetes quantities.

use std::cmp::Ordering;

use super::Outcome;
use crate::{
    cel::{eval::failed, value::Value},
    quantity::Quantity,
};

pub(super) fn call<'a>(name: &str, values: &[Value<'a>]) -> Option<Outcome<'a>> {
    let (Value::Quantity(quantity), arguments) = values.split_first()? else {
        return None;
    };
    let zero = Quantity::from_units(0);
    let order = |order: Ordering| match order {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    };
    let result = match (name, arguments) {
        ("isGreaterThan", [Value::Quantity(other)]) => Value::Bool(quantity > other),
        ("isLessThan", [Value::Quantity(other)]) => Value::Bool(quantity < other),
        ("compareTo", [Value::Quantity(other)]) => Value::Int(order(quantity.cmp(other))),
        ("sign", []) => Value::Int(order(quantity.cmp(&zero))),
        ("isInteger", []) => Value::Bool(quantity.is_integer()),
        ("asInteger", []) if quantity.is_integer() => Value::Int(quantity.value()),
        ("asInteger", []) => {
            return Some(Err(failed("cannot convert value to integer")));
        }
        #[allow(clippy::cast_precision_loss)] // It says approximate.
        ("asApproximateFloat", []) => Value::Double(quantity.milli_value() as f64 / 1000.0),
        ("add", [Value::Quantity(other)]) => Value::Quantity(quantity.plus(other)),
        ("sub", [Value::Quantity(other)]) => Value::Quantity(quantity.minus(other)),
        ("add", [Value::Int(other)]) => {
            Value::Quantity(quantity.plus(&Quantity::from_units(*other)))
        }
        ("sub", [Value::Int(other)]) => {
            Value::Quantity(quantity.minus(&Quantity::from_units(*other)))
        }
        _ => return None,
    };
    Some(Ok(result))
}
