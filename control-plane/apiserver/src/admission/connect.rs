//! Streams to a pod and requests passed on to it: policies and webhooks see what is asked for before the node does.

use std::fmt::Write as _;

use hull_api::{ApiError, ObjectExt, registry::Subresource};
use serde_json::{Map, Value, json};

use super::dynamic::{self, Operation};
use crate::{
    handlers::Context,
    http::{Query, decode},
    proxy,
};

const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

/// Asks whether a stream may be opened, or a request passed on; the parameters to open it with,
/// when somebody changed them. `path` is the request's.
pub(crate) async fn admit_connect(
    context: &Context<'_>,
    path: &str,
) -> Result<Option<String>, ApiError> {
    let mut options = options(context, path)?;
    let connect = Operation::Connect;
    let changed = dynamic::mutate(context, connect, &mut options, None, false).await?;
    dynamic::validate(context, connect, Some(&options), None, false).await?;
    Ok(changed.then(|| to_query(&options)))
}

/// The parameters as the object that they stand for: PodExecOptions and its like.
fn options(context: &Context<'_>, path: &str) -> Result<Value, ApiError> {
    let part = context.subresource.unwrap_or(Subresource::Exec);
    let query = context.query;
    let mut options = Map::new();
    if let Some((_, version, kind)) = part.info().kind {
        options.insert("kind".to_string(), json!(kind));
        options.insert("apiVersion".to_string(), json!(version));
    }
    if part.is_proxy() {
        let (_, below) = proxy::split_path(path, context.kind.namespaced);
        if !below.is_empty() {
            options.insert("path".to_string(), json!(decode(below, false)));
        }
        return Ok(Value::Object(options));
    }
    if part == Subresource::PortForward {
        let ports = ports(query)?;
        if !ports.is_empty() {
            options.insert("ports".to_string(), json!(ports));
        }
        return Ok(Value::Object(options));
    }
    for flag in FLAGS.into_iter().filter(|flag| query.flag(flag)) {
        options.insert(flag.to_string(), json!(true));
    }
    if !query.get("container").is_empty() {
        options.insert("container".to_string(), json!(query.get("container")));
    }
    if part == Subresource::Exec {
        let command: Vec<&str> = query.all("command").collect();
        options.insert("command".to_string(), json!(command));
    }
    Ok(Value::Object(options))
}

/// `ports=80&ports=81`, or `ports=80,81`.
fn ports(query: &Query) -> Result<Vec<u16>, ApiError> {
    let texts = query.all("ports").flat_map(|text| text.split(','));
    texts
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse().map_err(|_| {
                ApiError::bad_request(format!(
                    "cannot convert to []int32: strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            })
        })
        .collect()
}

/// The parameters that options stand for.
fn to_query(options: &Value) -> String {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for flag in FLAGS {
        if options.bool_at(&format!("/{flag}")) {
            pairs.push((flag, "true".to_string()));
        }
    }
    if !options.str_at("/container").is_empty() {
        pairs.push(("container", encoded(options.str_at("/container"))));
    }
    for word in options.list_at("/command").iter().filter_map(Value::as_str) {
        pairs.push(("command", encoded(word)));
    }
    for port in options.list_at("/ports").iter().filter_map(Value::as_u64) {
        pairs.push(("ports", port.to_string()));
    }
    let parts: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    parts.join("&")
}

/// Percent encoding of all but letters, digits, `-`, `_` and `.`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(byte.into()),
            _ => {
                // Writing into a text cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_options_become_parameters_again() {
        let options = json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true,
            "tty": false, "container": "web", "command": ["sh", "-c", "echo a&b=ä +%"]});
        let text = to_query(&options);
        let query = Query::parse(&text);
        assert!(query.flag("stdout") && !query.flag("tty") && !query.flag("stdin"));
        assert_eq!(query.get("container"), "web");
        let command: Vec<&str> = query.all("command").collect();
        assert_eq!(command, ["sh", "-c", "echo a&b=ä +%"]);
        let ports = ports(&Query::parse(&to_query(&json!({"ports": [80, 81]})))).unwrap();
        assert_eq!(ports, [80, 81]);
        assert_eq!(
            super::ports(&Query::parse("ports=80,81")).unwrap(),
            [80, 81]
        );
        assert!(super::ports(&Query::parse("ports=http")).is_err());
    }
}
