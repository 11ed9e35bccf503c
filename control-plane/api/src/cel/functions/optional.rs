//! Values that may be absent.

use super::Outcome;
use crate::cel::{eval::failed, value::Value};

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(value) => !value,
        Value::Int(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Double(value) => *value == 0.0,
        Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => value.size() == 0,
        _ => false,
    }
}

pub(super) fn call<'a>(name: &str, values: &[Value<'a>]) -> Option<Outcome<'a>> {
    Some(match (name, values) {
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.of", [value]) => Ok(Value::Optional(Some(Box::new(value.clone())))),
        ("optional.ofNonZeroValue", [value]) => Ok(Value::Optional(
            (!is_zero(value)).then(|| Box::new(value.clone())),
        )),
        ("hasValue", [Value::Optional(found)]) => Ok(Value::Bool(found.is_some())),
        ("value", [Value::Optional(found)]) => found
            .as_deref()
            .cloned()
            .ok_or_else(|| failed("optional.none() dereference")),
        ("orValue", [Value::Optional(found), other]) => {
            Ok(found.as_deref().unwrap_or(other).clone())
        }
        ("or", [first @ Value::Optional(found), other @ Value::Optional(_)]) => {
            Ok(if found.is_some() { first } else { other }.clone())
        }
        _ => return None,
    })
}
