//! The part of kubectl's JSONPath that printer columns use: fields, quoted fields, indexes,
//! wildcards, and filters that compare (`.status.conditions[?(@.type=="Ready")].status`).

use serde_json::Value;

/// Steps in a path; more is a mistake.
const MAX_STEPS: usize = 64;
/// Values that a wildcard or filter may lead to at most.
const MAX_RESULTS: usize = 1024;

/// One step.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Every,
    /// Elements whose field compares so with a value; without a comparison: that have it.
    Where(Vec<String>, Option<(Comparison, Value)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A path that can be asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

/// A text that is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonPathError(String);

fn broken(why: impl Into<String>) -> JsonPathError {
    JsonPathError(why.into())
}

impl JsonPath {
    /// Reads a path that begins with a dot.
    ///
    /// # Errors
    /// When the text is no path of the kinds above.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if steps.len() >= MAX_STEPS {
                return Err(broken("the path is too long"));
            }
            if let Some(tail) = rest.strip_prefix('[') {
                let end = closing(tail).ok_or_else(|| broken("unterminated array"))?;
                steps.push(bracket(&tail[..end])?);
                rest = &tail[end + 1..];
            } else if let Some(tail) = rest.strip_prefix('.') {
                let (name, tail) = field_name(tail);
                match name.as_str() {
                    "" if tail.starts_with('[') || tail.is_empty() => {}
                    "" => return Err(broken("recursive descent is not supported")),
                    "*" => steps.push(Step::Every),
                    _ => steps.push(Step::Field(name)),
                }
                rest = tail;
            } else {
                return Err(broken(format!("unexpected {rest:?}")));
            }
        }
        Ok(JsonPath(steps))
    }

    /// The names of a path of fields only.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.0
            .iter()
            .map(|step| match step {
                Step::Field(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// What the path leads to.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.follow(value, &mut next);
                if next.len() > MAX_RESULTS {
                    next.truncate(MAX_RESULTS);
                    break;
                }
            }
            found = next;
        }
        found
    }
}

/// The position of the bracket that closes, quotes and inner brackets skipped.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A name up to the next dot or bracket; `\` escapes one.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

fn unquote(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text[1..].strip_suffix(quote)?;
    Some(inner.replace(&format!("\\{quote}"), &quote.to_string()))
}

fn bracket(text: &str) -> Result<Step, JsonPathError> {
    let text = text.trim();
    if text == "*" {
        return Ok(Step::Every);
    }
    if let Some(name) = unquote(text) {
        return Ok(Step::Field(name));
    }
    if let Ok(index) = text.parse() {
        return Ok(Step::Index(index));
    }
    let filter = text
        .strip_prefix("?(")
        .and_then(|text| text.strip_suffix(')'))
        .ok_or_else(|| broken(format!("invalid array index {text}")))?;
    const OPERATORS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let operator = OPERATORS
        .iter()
        .filter_map(|(word, comparison)| Some((filter.find(word)?, *word, *comparison)))
        .min_by_key(|(at, word, _)| (*at, std::cmp::Reverse(word.len())));
    let Some((at, word, comparison)) = operator else {
        return Ok(Step::Where(relative(filter)?, None));
    };
    let value = filter[at + word.len()..].trim();
    let value = match unquote(value) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(value)
            .map_err(|_| broken(format!("cannot compare with {value}")))?,
    };
    Ok(Step::Where(
        relative(&filter[..at])?,
        Some((comparison, value)),
    ))
}

/// `@.a.b`.
fn relative(text: &str) -> Result<Vec<String>, JsonPathError> {
    let path = text
        .trim()
        .strip_prefix('@')
        .ok_or_else(|| broken("a filter has to begin with @"))?;
    let path = JsonPath::parse(path)?;
    let fields = path.fields();
    fields
        .map(|fields| fields.into_iter().map(str::to_string).collect())
        .ok_or_else(|| broken("a filter may only name fields"))
}

impl Step {
    fn follow<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>) {
        match (self, value) {
            (Step::Field(name), value) => out.extend(value.get(name)),
            (Step::Index(index), Value::Array(items)) => {
                let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let index = if *index < 0 { length + index } else { *index };
                out.extend(usize::try_from(index).ok().and_then(|i| items.get(i)));
            }
            (Step::Every, Value::Array(items)) => out.extend(items),
            (Step::Every, Value::Object(map)) => out.extend(map.values()),
            (Step::Where(path, test), Value::Array(items)) => {
                out.extend(
                    items
                        .iter()
                        .filter(|item| passes(item, path, test.as_ref())),
                );
            }
            _ => {}
        }
    }
}

fn passes(item: &Value, path: &[String], test: Option<&(Comparison, Value)>) -> bool {
    let mut found = Some(item);
    for name in path {
        found = found.and_then(|value| value.get(name));
    }
    let (Some(found), Some((comparison, wanted))) = (found, test) else {
        return found.is_some() && test.is_none();
    };
    let order = match (found, wanted) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    };
    let equal = found == wanted || order.is_some_and(std::cmp::Ordering::is_eq);
    match comparison {
        Comparison::Equal => equal,
        Comparison::NotEqual => !equal,
        Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_indexes_wildcards_and_filters_lead_to_values() {
        let object = json!({"spec": {"a.b": 1, "n": [1, 2, 3]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "n": 1},
                {"type": "Other", "status": "False", "n": 5}]}});
        for (path, wanted) in [
            (".spec.n[1]", json!([2])),
            (".spec.n[-1]", json!([3])),
            (".spec.n[*]", json!([1, 2, 3])),
            (".spec.a\\.b", json!([1])),
            (".spec['a.b']", json!([1])),
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type=='Other')].status",
                json!(["False"]),
            ),
            (".status.conditions[?(@.n>2)].type", json!(["Other"])),
            (".status.conditions[?(@.n)].type", json!(["Ready", "Other"])),
            (".no.such", json!([])),
            (".spec.n[7]", json!([])),
        ] {
            let parsed = JsonPath::parse(path).unwrap();
            assert_eq!(json!(parsed.find(&object)), wanted, "{path}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["spec", "..a", ".a[", ".a[x]", ".a[?(b==1)]", ".a[?(@.b==)]"] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
        let long = ".a".repeat(100);
        assert!(JsonPath::parse(&long).is_err());
    }
}
