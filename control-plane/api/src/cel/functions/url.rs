//! URLs.

use std::rc::Rc;

use super::Outcome;
use crate::cel::{
    eval::failed,
    value::{Map, Value},
};

/// A URL's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// As given.
    pub text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

/// An absolute URL, or an absolute path.
fn parse(text: &str) -> Option<Url> {
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return None;
    }
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) =>
        {
            (scheme, rest)
        }
        _ if text.starts_with('/') => ("", text),
        _ => return None,
    };
    let rest = rest.split('#').next().unwrap_or("");
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    let host = host.rsplit('@').next().unwrap_or(host);
    Some(Url {
        text: text.to_string(),
        scheme: scheme.to_ascii_lowercase(),
        host: host.to_string(),
        path: path.to_string(),
        query: query.to_string(),
    })
}

impl Url {
    /// Name and port.
    fn host_parts(&self) -> (&str, &str) {
        if let Some(rest) = self.host.strip_prefix('[') {
            let (name, rest) = rest.split_once(']').unwrap_or((rest, ""));
            return (name, rest.trim_start_matches(':'));
        }
        self.host.rsplit_once(':').unwrap_or((&self.host, ""))
    }
}

/// It is one.
pub(super) fn is_url(text: &str) -> bool {
    parse(text).is_some()
}

pub(super) fn convert<'a>(name: &str, text: &str) -> Outcome<'a> {
    match (name, parse(text)) {
        ("isURL", parsed) => Ok(Value::Bool(parsed.is_some())),
        (_, Some(url)) => Ok(Value::Url(Rc::new(url))),
        (_, None) => Err(failed(format!(
            "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
        ))),
    }
}

pub(super) fn call<'a>(name: &str, url: &Url) -> Option<Outcome<'a>> {
    let (host, port) = url.host_parts();
    let result = match name {
        "getScheme" => Value::owned(url.scheme.as_str()),
        "getHost" => Value::owned(url.host.as_str()),
        "getHostname" => Value::owned(host),
        "getPort" => Value::owned(port),
        "getEscapedPath" => Value::owned(url.path.as_str()),
        "getQuery" => query(&url.query),
        _ => return None,
    };
    Some(Ok(result))
}

/// Values by name, each a list.
fn query<'a>(text: &str) -> Value<'a> {
    let mut names: Vec<(String, Vec<Value<'a>>)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Value::owned(value);
        match names.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => names.push((name.to_string(), vec![value])),
        }
    }
    let entries = names.into_iter();
    let entries = entries.map(|(name, values)| (Value::owned(name), Value::list(values)));
    Value::Map(Map::Owned(Rc::new(entries.collect())))
}
