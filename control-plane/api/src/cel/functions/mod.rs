//! The functions that expressions may call.

pub(super) mod authorizer;
mod convert;
pub(super) mod format;
pub(super) mod formats;
mod lists;
mod net;
mod numbers;
mod optional;
mod quantities;
pub(super) mod semver;
mod strings;
pub(super) mod time;
pub(super) mod url;

use super::{
    eval::{EvalError, Run},
    value::Value,
};

type Outcome<'a> = Result<Value<'a>, EvalError>;

/// A type's name as a value.
pub(super) fn type_by_name(name: &str) -> Option<&'static str> {
    const TYPES: [&str; 11] = [
        "null_type",
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "type",
        "optional_type",
    ];
    TYPES.into_iter().find(|known| *known == name)
}

/// No function of that name takes such values.
fn no_overload<'a>(name: &str, values: &[Value<'a>]) -> EvalError {
    let types: Vec<&str> = values.iter().map(Value::type_name).collect();
    EvalError::Overload(format!("{name}({})", types.join(", ")))
}

/// Calls a function; the value it is called on is the first of `values`.
pub(super) fn call<'a>(
    run: &mut Run<'_, 'a>,
    name: &str,
    on_value: bool,
    values: &[Value<'a>],
) -> Outcome<'a> {
    for value in values {
        run.spend(value.size())?;
    }
    let found = match values {
        [Value::Optional(_), ..] if on_value => optional::call(name, values),
        [Value::Quantity(_), ..] if on_value => quantities::call(name, values),
        [Value::Ip(_) | Value::Cidr(..), ..] if on_value => net::call(name, values),
        [Value::Url(url)] if on_value => url::call(name, url),
        [Value::Check(check), rest @ ..] if on_value => authorizer::call(run, name, check, rest),
        [Value::Timestamp(_) | Value::Duration(_), ..] if on_value => time::call(name, values),
        [Value::Semver(version), rest @ ..] if on_value => semver::call(name, version, rest),
        [Value::Format(format), rest @ ..] if on_value => formats::call(name, format, rest),
        [Value::String(text), Value::List(list)] if on_value && name == "format" => {
            Some(format::call(run, text.as_str(), list))
        }
        [Value::List(list)] if name == "optional.unwrap" => {
            lists::call(run, "unwrapOpt", list, &[])
        }
        [Value::List(list), rest @ ..] if on_value => lists::call(run, name, list, rest),
        [Value::String(text), rest @ ..] if on_value || name == "matches" => {
            strings::call(run, name, text.as_str(), rest)
        }
        _ if name.starts_with("math.") => numbers::call(name, values),
        _ if name.starts_with("optional.") => optional::call(name, values),
        _ if name.starts_with("sets.") => lists::sets(run, name, values),
        _ if name.ends_with("emver") => semver::convert(name, values),
        _ if name.starts_with("format.") => {
            formats::find(name.trim_start_matches("format."), values)
        }
        _ => convert::call(run, name, values),
    };
    found.unwrap_or_else(|| Err(no_overload(name, values)))
}
