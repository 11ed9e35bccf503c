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

/// A function: name, whether it is called on a value, and with how many arguments.
struct Function {
    name: &'static str,
    on_value: bool,
    least: usize,
    most: usize,
}

const fn on(name: &'static str, least: usize, most: usize) -> Function {
    Function {
        name,
        on_value: true,
        least,
        most,
    }
}

const fn of(name: &'static str, least: usize, most: usize) -> Function {
    Function {
        name,
        on_value: false,
        least,
        most,
    }
}

const ANY: usize = usize::MAX;

static FUNCTIONS: &[Function] = &[
    of("size", 1, 1),
    on("size", 0, 0),
    of("int", 1, 1),
    of("uint", 1, 1),
    of("double", 1, 1),
    of("string", 1, 1),
    of("bytes", 1, 1),
    of("bool", 1, 1),
    of("dyn", 1, 1),
    of("type", 1, 1),
    of("timestamp", 1, 1),
    of("duration", 1, 1),
    of("matches", 2, 2),
    on("matches", 1, 1),
    on("contains", 1, 1),
    on("startsWith", 1, 1),
    on("endsWith", 1, 1),
    on("charAt", 1, 1),
    on("indexOf", 1, 2),
    on("lastIndexOf", 1, 2),
    on("lowerAscii", 0, 0),
    on("upperAscii", 0, 0),
    on("replace", 2, 3),
    on("split", 1, 2),
    on("substring", 1, 2),
    on("trim", 0, 0),
    on("reverse", 0, 0),
    on("join", 0, 1),
    on("find", 1, 1),
    on("findAll", 1, 2),
    of("strings.quote", 1, 1),
    of("jsonpatch.escapeKey", 1, 1),
    on("isSorted", 0, 0),
    on("sum", 0, 0),
    on("min", 0, 0),
    on("max", 0, 0),
    on("distinct", 0, 0),
    on("flatten", 0, 1),
    on("slice", 2, 2),
    on("sort", 0, 0),
    of("lists.range", 1, 1),
    of("sets.contains", 2, 2),
    of("sets.equivalent", 2, 2),
    of("sets.intersects", 2, 2),
    of("math.greatest", 1, ANY),
    of("math.least", 1, ANY),
    of("math.abs", 1, 1),
    of("math.sign", 1, 1),
    of("math.ceil", 1, 1),
    of("math.floor", 1, 1),
    of("math.round", 1, 1),
    of("math.trunc", 1, 1),
    of("math.isNaN", 1, 1),
    of("math.isInf", 1, 1),
    of("math.isFinite", 1, 1),
    on("getFullYear", 0, 1),
    on("getMonth", 0, 1),
    on("getDate", 0, 1),
    on("getDayOfMonth", 0, 1),
    on("getDayOfWeek", 0, 1),
    on("getDayOfYear", 0, 1),
    on("getHours", 0, 1),
    on("getMinutes", 0, 1),
    on("getSeconds", 0, 1),
    on("getMilliseconds", 0, 1),
    of("optional.of", 1, 1),
    of("optional.ofNonZeroValue", 1, 1),
    of("optional.none", 0, 0),
    on("hasValue", 0, 0),
    on("value", 0, 0),
    on("orValue", 1, 1),
    on("or", 1, 1),
    of("quantity", 1, 1),
    of("isQuantity", 1, 1),
    on("isGreaterThan", 1, 1),
    on("isLessThan", 1, 1),
    on("compareTo", 1, 1),
    on("isInteger", 0, 0),
    on("asInteger", 0, 0),
    on("asApproximateFloat", 0, 0),
    on("sign", 0, 0),
    on("add", 1, 1),
    on("sub", 1, 1),
    of("ip", 1, 1),
    of("isIP", 1, 1),
    of("ip.isCanonical", 1, 1),
    on("family", 0, 0),
    on("isUnspecified", 0, 0),
    on("isLoopback", 0, 0),
    on("isLinkLocalMulticast", 0, 0),
    on("isLinkLocalUnicast", 0, 0),
    on("isGlobalUnicast", 0, 0),
    of("cidr", 1, 1),
    of("isCIDR", 1, 1),
    on("containsIP", 1, 1),
    on("containsCIDR", 1, 1),
    on("ip", 0, 0),
    on("masked", 0, 0),
    on("prefixLength", 0, 0),
    of("url", 1, 1),
    of("isURL", 1, 1),
    on("getScheme", 0, 0),
    on("getHost", 0, 0),
    on("getHostname", 0, 0),
    on("getPort", 0, 0),
    on("getEscapedPath", 0, 0),
    on("getQuery", 0, 0),
    on("format", 1, 1),
    of("format.named", 1, 1),
    on("validate", 1, 1),
    of("semver", 1, 2),
    of("isSemver", 1, 2),
    on("major", 0, 0),
    on("minor", 0, 0),
    on("patch", 0, 0),
    on("first", 0, 0),
    on("last", 0, 0),
    on("unwrapOpt", 0, 0),
    of("optional.unwrap", 1, 1),
    on("path", 1, 1),
    on("group", 1, 1),
    on("serviceAccount", 2, 2),
    on("resource", 1, 1),
    on("subresource", 1, 1),
    on("namespace", 1, 1),
    on("name", 1, 1),
    on("fieldSelector", 1, 1),
    on("labelSelector", 1, 1),
    on("check", 1, 1),
    on("allowed", 0, 0),
    on("reason", 0, 0),
    on("errored", 0, 0),
    on("error", 0, 0),
];

/// Whether a call fits a function.
pub(super) enum Known {
    /// It does.
    Yes,
    /// There is one of that name, with other arguments.
    OtherArguments,
    /// There is none.
    No,
}

/// Looks a call up.
pub(super) fn known(name: &str, on_value: bool, arguments: usize) -> Known {
    if let Some(format) = name.strip_prefix("format.")
        && formats::is_known(format)
        && format != "named"
    {
        return match (on_value, arguments) {
            (false, 0) => Known::Yes,
            _ => Known::OtherArguments,
        };
    }
    let mut result = Known::No;
    for function in FUNCTIONS.iter().filter(|function| function.name == name) {
        let fits = (function.least..=function.most).contains(&arguments);
        if function.on_value == on_value && fits {
            return Known::Yes;
        }
        result = Known::OtherArguments;
    }
    result
}

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
