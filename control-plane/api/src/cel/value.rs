//! Values, read from JSON where it is.

use std::{cmp::Ordering, net::IpAddr, rc::Rc};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map as JsonMap, Value as Json};

use super::functions::{authorizer::Check, formats::Format, semver::Version, url::Url};
use crate::{
    custom::{Node, ValueType},
    quantity::Quantity,
    time,
};

/// A text, borrowed where possible.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    /// Somebody else's.
    Borrowed(&'a str),
    /// Made by the expression.
    Owned(Rc<str>),
}

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Owned(text) => text,
        }
    }
}

/// A list.
#[derive(Debug, Clone)]
pub enum List<'a> {
    /// As in JSON, elements of the given schema.
    Json(&'a [Json], Option<&'a Node>),
    /// Made by the expression.
    Owned(Rc<Vec<Value<'a>>>),
}

/// A map or object.
#[derive(Debug, Clone)]
pub enum Map<'a> {
    /// As in JSON.
    Json(&'a JsonMap<String, Json>, Option<&'a Node>),
    /// Made by the expression.
    Owned(Rc<Vec<(Value<'a>, Value<'a>)>>),
}

/// A value.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number without sign.
    Uint(u64),
    /// A floating point number.
    Double(f64),
    /// A text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Rc<[u8]>),
    /// A list.
    List(List<'a>),
    /// A map.
    Map(Map<'a>),
    /// A moment.
    Timestamp(Timestamp),
    /// A time between moments.
    Duration(SignedDuration),
    /// Something that may be absent.
    Optional(Option<Box<Value<'a>>>),
    /// A type, by its name.
    Type(&'static str),
    /// A Kubernetes quantity.
    Quantity(Quantity),
    /// An IP address.
    Ip(IpAddr),
    /// A network: its address and the bits of its prefix.
    Cidr(IpAddr, u8),
    /// A URL.
    Url(Rc<Url>),
    /// A semantic version.
    Semver(Rc<Version>),
    /// A named format.
    Format(&'static Format),
    /// `authorizer`, and what it makes.
    Check(Rc<Check<'a>>),
}

impl<'a> Value<'a> {
    /// A text made by the expression.
    pub fn owned(text: impl Into<Rc<str>>) -> Self {
        Value::String(Text::Owned(text.into()))
    }

    /// A list made by the expression.
    pub fn list(items: Vec<Value<'a>>) -> Self {
        Value::List(List::Owned(Rc::new(items)))
    }

    /// The text that it is.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// A JSON value of a type.
    pub fn typed(json: &'a Json, node: Option<&'a Node>) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => {
                let wants_double =
                    node.is_some_and(|node| node.value_type == Some(ValueType::Number));
                match (number.as_i64(), number.as_u64()) {
                    (Some(value), _) if !wants_double => Value::Int(value),
                    (None, Some(value)) if !wants_double => Value::Uint(value),
                    _ => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
                }
            }
            Json::String(text) => typed_text(text, node),
            Json::Array(items) => Value::List(List::Json(
                items,
                node.and_then(|node| node.items.as_deref()),
            )),
            Json::Object(map) => Value::Map(Map::Json(map, node)),
        }
    }

    /// A JSON value of which nothing is known.
    pub fn json(json: &'a Json) -> Self {
        Self::typed(json, None)
    }

    /// The value's type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Optional(_) => "optional_type",
            Value::Type(_) => "type",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Ip(_) => "net.IP",
            Value::Cidr(..) => "net.CIDR",
            Value::Url(_) => "kubernetes.URL",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Check(check) => check.type_name(),
        }
    }

    /// Two values are the same; numbers of different types may be.
    pub fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => a.as_str() == b.as_str(),
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && (0..a.len()).all(|i| a.at(i).equals(&b.at(i)))
            }
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len()
                    && a.entries()
                        .all(|(key, value)| b.get(&key).is_some_and(|other| value.equals(&other)))
            }
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (None, None) => true,
                _ => false,
            },
            (Value::Type(a), Value::Type(b)) => a == b,
            (Value::Ip(a), Value::Ip(b)) => a == b,
            (Value::Cidr(a, x), Value::Cidr(b, y)) => (a, x) == (b, y),
            (Value::Url(a), Value::Url(b)) => a.text == b.text,
            (Value::Semver(a), Value::Semver(b)) => a.order(b) == Ordering::Equal,
            (Value::Format(a), Value::Format(b)) => a.name == b.name,
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }

    /// How two values of the same sort compare.
    pub fn order(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::String(a), Value::String(b)) => Some(a.as_str().cmp(b.as_str())),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Quantity(a), Value::Quantity(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            _ => self.as_number()?.partial_cmp(&other.as_number()?),
        }
    }

    #[allow(clippy::cast_precision_loss)] // As CEL compares.
    fn as_number(&self) -> Option<f64> {
        match self {
            Value::Int(value) => Some(*value as f64),
            Value::Uint(value) => Some(*value as f64),
            Value::Double(value) => Some(*value),
            _ => None,
        }
    }

    /// Bytes and elements in it: what work on it costs.
    pub fn size(&self) -> usize {
        match self {
            Value::String(text) => text.as_str().len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            _ => 1,
        }
    }

    /// As JSON; what has no form of its own there as text.
    pub fn to_json(&self) -> Json {
        match self {
            Value::Null | Value::Optional(None) => Json::Null,
            Value::Bool(value) => Json::from(*value),
            Value::Int(value) => Json::from(*value),
            Value::Uint(value) => Json::from(*value),
            Value::Double(value) => Json::from(*value),
            Value::Optional(Some(value)) => value.to_json(),
            Value::List(list) => (0..list.len()).map(|i| list.at(i).to_json()).collect(),
            Value::Map(map) => map
                .entries()
                .map(|(key, value)| (key.to_text().unwrap_or_default(), value.to_json()))
                .collect::<JsonMap<_, _>>()
                .into(),
            other => Json::from(other.to_text().unwrap_or_default()),
        }
    }

    /// As `string()` writes it; `None`: there is no such form.
    pub fn to_text(&self) -> Option<String> {
        Some(match self {
            Value::String(text) => text.as_str().to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Uint(value) => value.to_string(),
            Value::Double(value) => shortest_double(*value),
            Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
            Value::Timestamp(time) => time.to_string(),
            Value::Duration(duration) => format!("{}s", duration.as_secs_f64()),
            Value::Quantity(quantity) => quantity.to_string(),
            Value::Ip(ip) => ip.to_string(),
            Value::Cidr(ip, bits) => format!("{ip}/{bits}"),
            Value::Url(url) => url.text.clone(),
            Value::Semver(version) => version.to_string(),
            Value::Type(name) => (*name).to_string(),
            Value::Null
            | Value::List(_)
            | Value::Map(_)
            | Value::Optional(_)
            | Value::Format(_)
            | Value::Check(_) => {
                return None;
            }
        })
    }
}

/// The shortest text that stands for a double; with an exponent where Go has one (`%g`).
pub(super) fn shortest_double(number: f64) -> String {
    const EXPONENTS_WITHOUT: std::ops::Range<i32> = -4..21;
    if number.is_infinite() {
        let text = if number > 0.0 { "+Inf" } else { "-Inf" };
        return text.to_string();
    }
    let scientific = format!("{number:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if EXPONENTS_WITHOUT.contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// Texts of some formats are something else in expressions.
fn typed_text<'a>(text: &'a str, node: Option<&'a Node>) -> Value<'a> {
    let rules = node.and_then(|node| node.rules.as_ref());
    let converted = match rules.map_or("", |rules| rules.format.as_str()) {
        "date-time" => time::parse(text).map(Value::Timestamp),
        "date" => text
            .parse::<jiff::civil::Date>()
            .ok()
            .and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .map(|zoned| Value::Timestamp(zoned.timestamp())),
        "duration" => super::functions::time::parse_duration(text).map(Value::Duration),
        "byte" => {
            use base64::{Engine, engine::general_purpose::STANDARD};
            let decoded = STANDARD.decode(text).ok();
            decoded.map(|bytes| Value::Bytes(bytes.into()))
        }
        _ => None,
    };
    converted.unwrap_or(Value::String(Text::Borrowed(text)))
}

impl<'a> List<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Owned(items) => items.len(),
        }
    }

    /// An element; null beyond the end.
    pub fn at(&self, index: usize) -> Value<'a> {
        match self {
            List::Json(items, node) => items
                .get(index)
                .map_or(Value::Null, |item| Value::typed(item, *node)),
            List::Owned(items) => items.get(index).cloned().unwrap_or(Value::Null),
        }
    }

    /// Every element.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).map(|index| self.at(index))
    }
}

/// Field names that are no identifiers are written with escapes (`__dot__`).
pub(super) fn unescape(name: &str) -> String {
    const ESCAPES: [(&str, &str); 4] = [
        ("__dot__", "."),
        ("__dash__", "-"),
        ("__slash__", "/"),
        ("__underscores__", "__"),
    ];
    if !name.contains("__") {
        return name.to_string();
    }
    let (mut out, mut rest) = (String::new(), name);
    'text: while !rest.is_empty() {
        for (escape, text) in ESCAPES {
            if let Some(tail) = rest.strip_prefix(escape) {
                out.push_str(text);
                rest = tail;
                continue 'text;
            }
        }
        let end = rest.chars().next().map_or(rest.len(), char::len_utf8);
        out.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    // `__if__` is the field `if`.
    match out
        .strip_prefix("__")
        .and_then(|text| text.strip_suffix("__"))
    {
        Some(keyword) if !keyword.is_empty() => keyword.to_string(),
        _ => out,
    }
}

impl<'a> Map<'a> {
    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        match self {
            Map::Json(map, _) => map.len(),
            Map::Owned(entries) => entries.len(),
        }
    }

    /// The value under a key.
    pub fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Map::Json(map, node), Value::String(name)) => {
                let name = name.as_str();
                let value = map.get(name)?;
                Some(Value::typed(value, node.and_then(|node| node.field(name))))
            }
            (Map::Json(..), _) => None,
            (Map::Owned(entries), key) => entries
                .iter()
                .find(|(found, _)| found.equals(key))
                .map(|(_, value)| value.clone()),
        }
    }

    /// The value of a field as expressions name it.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        let found = self.get(&Value::String(Text::Borrowed(name)));
        if found.is_some() || !name.contains("__") {
            return found;
        }
        self.get(&Value::owned(unescape(name)))
    }

    /// Every entry.
    pub fn entries(&self) -> Box<dyn Iterator<Item = (Value<'a>, Value<'a>)> + '_> {
        match self {
            Map::Json(map, node) => Box::new(map.iter().map(|(name, value)| {
                let inner = node.and_then(|node| node.field(name));
                (
                    Value::String(Text::Borrowed(name)),
                    Value::typed(value, inner),
                )
            })),
            Map::Owned(entries) => Box::new(entries.iter().cloned()),
        }
    }
}
