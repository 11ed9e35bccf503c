//! Sizes and conversions.

use super::{Outcome, format, net, time, url};
use crate::{
    cel::{
        eval::{EvalError, Run, failed},
        value::Value,
    },
    quantity::Quantity,
};

/// Longest `lists.range`.
const MAX_RANGE: i64 = 100_000;

fn count(length: usize) -> Value<'static> {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

/// The `size` of a value.
pub(super) fn size(value: &Value<'_>) -> Option<Value<'static>> {
    Some(match value {
        Value::String(text) => count(text.as_str().chars().count()),
        Value::Bytes(bytes) => count(bytes.len()),
        Value::List(list) => count(list.len()),
        Value::Map(map) => count(map.len()),
        _ => return None,
    })
}

pub(super) fn call<'a>(
    run: &mut Run<'_, 'a>,
    name: &str,
    values: &[Value<'a>],
) -> Option<Outcome<'a>> {
    let [value] = values else { return None };
    let result = match (name, value) {
        ("size", value) => Ok(size(value)?),
        ("dyn", value) => Ok(value.clone()),
        ("type", value) => Ok(Value::Type(value.type_name())),
        ("string", value) => Ok(Value::owned(value.to_text()?)),
        ("int", value) => int(value)?,
        ("uint", value) => uint(value)?,
        ("double", value) => double(value)?,
        ("bool", Value::Bool(value)) => Ok(Value::Bool(*value)),
        ("bool", Value::String(text)) => match text.as_str() {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            other => Err(failed(format!(
                "type conversion error from string to bool: {other}"
            ))),
        },
        ("bytes", Value::String(text)) => Ok(Value::Bytes(text.as_str().as_bytes().into())),
        ("bytes", Value::Bytes(bytes)) => Ok(Value::Bytes(bytes.clone())),
        ("timestamp" | "duration", value) => time::convert(name, value)?,
        ("quantity", Value::String(text)) => text
            .as_str()
            .parse::<Quantity>()
            .map(Value::Quantity)
            .map_err(|error| failed(error.to_string())),
        ("isQuantity", Value::String(text)) => {
            Ok(Value::Bool(text.as_str().parse::<Quantity>().is_ok()))
        }
        ("ip" | "isIP" | "ip.isCanonical" | "cidr" | "isCIDR", Value::String(text)) => {
            net::convert(name, text.as_str())?
        }
        ("url" | "isURL", Value::String(text)) => url::convert(name, text.as_str()),
        ("jsonpatch.escapeKey", Value::String(text)) => {
            let escaped = text.as_str().replace('~', "~0").replace('/', "~1");
            Ok(Value::owned(escaped))
        }
        ("strings.quote", Value::String(text)) => Ok(Value::owned(format::quoted(text.as_str()))),
        ("lists.range", Value::Int(end)) if (0..=MAX_RANGE).contains(end) => {
            match run.spend(
                usize::try_from(*end)
                    .unwrap_or(usize::MAX)
                    .saturating_mul(10),
            ) {
                Ok(()) => Ok(Value::list((0..*end).map(Value::Int).collect())),
                Err(error) => Err(error),
            }
        }
        _ => return None,
    };
    Some(result)
}

fn out_of_range(kind: &str) -> EvalError {
    failed(format!("{kind} range error"))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn int<'a>(value: &Value<'a>) -> Option<Outcome<'a>> {
    Some(match value {
        Value::Int(value) => Ok(Value::Int(*value)),
        Value::Uint(value) => i64::try_from(*value)
            .map(Value::Int)
            .map_err(|_| out_of_range("integer")),
        // The bounds themselves are no floats: everything strictly between them fits.
        Value::Double(value) if *value > i64::MIN as f64 && *value < i64::MAX as f64 => {
            Ok(Value::Int(*value as i64))
        }
        Value::Double(_) => Err(out_of_range("integer")),
        Value::String(text) => text.as_str().parse().map(Value::Int).map_err(|_| {
            failed(format!(
                "type conversion error from string to int: {}",
                text.as_str()
            ))
        }),
        Value::Timestamp(time) => Ok(Value::Int(time.as_second())),
        // In nanoseconds.
        Value::Duration(duration) => i64::try_from(duration.as_nanos())
            .map(Value::Int)
            .map_err(|_| out_of_range("integer")),
        _ => return None,
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]
fn uint<'a>(value: &Value<'a>) -> Option<Outcome<'a>> {
    Some(match value {
        Value::Uint(value) => Ok(Value::Uint(*value)),
        Value::Int(value) => u64::try_from(*value)
            .map(Value::Uint)
            .map_err(|_| out_of_range("unsigned integer")),
        Value::Double(value) if *value >= 0.0 && *value < u64::MAX as f64 => {
            Ok(Value::Uint(*value as u64))
        }
        Value::Double(_) => Err(out_of_range("unsigned integer")),
        Value::String(text) => text.as_str().parse().map(Value::Uint).map_err(|_| {
            failed(format!(
                "type conversion error from string to uint: {}",
                text.as_str()
            ))
        }),
        _ => return None,
    })
}

#[allow(clippy::cast_precision_loss)] // What a conversion to a float is.
fn double<'a>(value: &Value<'a>) -> Option<Outcome<'a>> {
    Some(match value {
        Value::Double(value) => Ok(Value::Double(*value)),
        Value::Int(value) => Ok(Value::Double(*value as f64)),
        Value::Uint(value) => Ok(Value::Double(*value as f64)),
        Value::String(text) => text.as_str().parse().map(Value::Double).map_err(|_| {
            failed(format!(
                "type conversion error from string to double: {}",
                text.as_str()
            ))
        }),
        _ => return None,
    })
}
