//! Validation of a custom resource's values against its schema, in the words of Kubernetes.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    formats,
    node::{Additional, ListRule, Node, Rules, ValueType},
    trail::Trail,
};
use crate::field::{ErrorKind, FieldError};

/// Errors reported at most per object.
const MAX_ERRORS: usize = 128;
/// Comparisons of a value with a schema: what a large object with an honest schema needs many
/// times over, and about a second.
const MAX_STEPS: usize = 10_000_000;

/// What is wrong with an object. With `old`, what was wrong already and did not change is
/// tolerated (Kubernetes: ratcheting).
pub fn validate(node: &Node, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut check = Check {
        errors: Vec::new(),
        steps: 0,
    };
    check.value(node, object, old, &Trail::Root);
    if check.steps > MAX_STEPS {
        check.errors.push(FieldError {
            kind: ErrorKind::Invalid,
            field: "<nil>".to_string(),
            value: Some(Value::from("")),
            detail: "the object is too large to be validated against its schema".to_string(),
        });
    }
    check.errors
}

struct Check {
    errors: Vec<FieldError>,
    steps: usize,
}

/// The type of a value as messages name it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(value: &Value) -> bool {
    match value {
        Value::Number(number) if number.is_f64() => {
            number.as_f64().is_some_and(|float| float.fract() == 0.0)
        }
        Value::Number(_) => true,
        _ => false,
    }
}

fn is_of(value_type: ValueType, value: &Value) -> bool {
    match value_type {
        ValueType::Object => value.is_object(),
        ValueType::Array => value.is_array(),
        ValueType::String => value.is_string(),
        ValueType::Boolean => value.is_boolean(),
        ValueType::Number => value.is_number(),
        ValueType::Integer => is_whole(value),
    }
}

/// Go's `%v` of a float.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e21 {
        format!("{value:.0}")
    } else {
        format!("{value}")
    }
}

fn length(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX)
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

impl Check {
    fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS || self.steps > MAX_STEPS
    }

    fn error(&mut self, kind: ErrorKind, at: &Trail<'_>, value: Option<Value>, detail: String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(FieldError {
                kind,
                field: at.to_string(),
                value,
                detail,
            });
        }
    }

    fn invalid(&mut self, at: &Trail<'_>, value: &Value, words: &str) {
        let detail = format!("{at} in body {words}");
        self.error(ErrorKind::Invalid, at, Some(value.clone()), detail);
    }

    fn too_many(&mut self, at: &Trail<'_>, count: u64, limit: u64) {
        let detail = format!("must have at most {limit} items");
        self.error(ErrorKind::TooMany, at, Some(Value::from(count)), detail);
    }

    fn value(&mut self, node: &Node, value: &Value, old: Option<&Value>, at: &Trail<'_>) {
        self.steps += 1;
        if self.is_full() || old.is_some_and(|old| old == value) {
            return;
        }
        if value.is_null() && node.nullable {
            return;
        }
        if !self.check_type(node, value, at) {
            return;
        }
        if let Some(rules) = &node.rules {
            self.rules(rules, value, at);
            self.quantors(rules, value, at);
        }
        match value {
            Value::Object(map) => self.fields(node, map, old, at),
            Value::Array(items) => self.items(node, items, old, at),
            _ => {}
        }
    }

    /// False: the value is of another type, nothing else about it matters.
    fn check_type(&mut self, node: &Node, value: &Value, at: &Trail<'_>) -> bool {
        let (fits, wanted) = match node.value_type {
            _ if node.int_or_string => (value.is_string() || is_whole(value), "integer,string"),
            Some(value_type) => (is_of(value_type, value), value_type.as_str()),
            None => (true, ""),
        };
        if !fits {
            let found = type_of(value);
            let detail = format!("{at} in body must be of type {wanted}: {found:?}");
            let value = Some(Value::from(found));
            self.error(ErrorKind::TypeInvalid, at, value, detail);
        }
        fits
    }

    fn fields(
        &mut self,
        node: &Node,
        map: &Map<String, Value>,
        old: Option<&Value>,
        at: &Trail<'_>,
    ) {
        if node.embedded {
            self.embedded(map, at);
        }
        if node.properties.is_empty() && !matches!(node.additional, Additional::Schema(_)) {
            return;
        }
        let is_resource = node.embedded || matches!(at, Trail::Root);
        for (name, item) in map {
            if is_resource && name == "metadata" {
                self.resource_metadata(node, item, at);
                continue;
            }
            if let Some(inner) = node.field(name) {
                let old = old.and_then(|old| old.get(name));
                self.value(inner, item, old, &Trail::Field(at, name));
            }
        }
    }

    /// Of the metadata a schema may restrict the name only.
    fn resource_metadata(&mut self, node: &Node, metadata: &Value, at: &Trail<'_>) {
        let Some(schema) = node.properties.get("metadata") else {
            return;
        };
        let at = Trail::Field(at, "metadata");
        for name in ["name", "generateName"] {
            if let (Some(inner), Some(value)) = (schema.properties.get(name), metadata.get(name)) {
                self.value(inner, value, None, &Trail::Field(&at, name));
            }
        }
    }

    fn embedded(&mut self, map: &Map<String, Value>, at: &Trail<'_>) {
        for field in ["apiVersion", "kind"] {
            let text = map.get(field).and_then(Value::as_str).unwrap_or("");
            if text.is_empty() {
                self.error(
                    ErrorKind::Required,
                    &Trail::Field(at, field),
                    None,
                    "must not be empty".to_string(),
                );
            }
        }
    }

    fn items(&mut self, node: &Node, items: &[Value], old: Option<&Value>, at: &Trail<'_>) {
        self.unique(node, items, at);
        let Some(inner) = &node.items else { return };
        let old = match (&node.list, old) {
            (ListRule::Map(keys), Some(Value::Array(old))) => Some((keys, old)),
            _ => None,
        };
        for (index, item) in items.iter().enumerate() {
            if self.is_full() {
                return;
            }
            let before = old.and_then(|(keys, old)| {
                // Nearly always at the same place.
                let same = |other: &&Value| keys.iter().all(|k| other.get(k) == item.get(k));
                old.get(index)
                    .filter(same)
                    .or_else(|| old.iter().find(same))
            });
            self.value(inner, item, before, &Trail::Index(at, index));
        }
    }

    /// Elements of sets and of lists with keys are there once.
    fn unique(&mut self, node: &Node, items: &[Value], at: &Trail<'_>) {
        let keys = match &node.list {
            ListRule::Atomic => return,
            ListRule::Set => None,
            ListRule::Map(keys) => Some(keys),
        };
        let mut seen = HashSet::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let identity = match keys {
                None => item.clone(),
                Some(keys) => keys
                    .iter()
                    .filter_map(|key| Some((key.clone(), item.get(key)?.clone())))
                    .collect::<Map<_, _>>()
                    .into(),
            };
            if !seen.insert(identity.to_string()) {
                self.error(
                    ErrorKind::Duplicate,
                    &Trail::Index(at, index),
                    Some(identity),
                    String::new(),
                );
            }
        }
    }

    fn rules(&mut self, rules: &Rules, value: &Value, at: &Trail<'_>) {
        match value {
            Value::String(text) => self.text(rules, text, value, at),
            Value::Number(found) => {
                if let Some(found) = found.as_f64() {
                    self.number(rules, found, value, at);
                }
            }
            Value::Array(items) => {
                let count = size(items.len());
                if let Some(limit) = rules.max_items.filter(|limit| count > *limit) {
                    self.too_many(at, count, limit);
                }
                if let Some(limit) = rules.min_items.filter(|limit| count < *limit) {
                    self.invalid(at, value, &format!("should have at least {limit} items"));
                }
            }
            Value::Object(map) => self.map(rules, map, value, at),
            _ => {}
        }
        if !rules.one_of_values.is_empty() && !rules.one_of_values.contains(value) {
            let supported: Vec<String> = rules
                .one_of_values
                .iter()
                .map(|one| match one {
                    Value::String(text) => format!("{text:?}"),
                    other => format!("{:?}", other.to_string()),
                })
                .collect();
            let detail = format!("supported values: {}", supported.join(", "));
            self.error(ErrorKind::NotSupported, at, Some(value.clone()), detail);
        }
    }

    fn map(&mut self, rules: &Rules, map: &Map<String, Value>, value: &Value, at: &Trail<'_>) {
        let count = size(map.len());
        if let Some(limit) = rules.max_properties.filter(|limit| count > *limit) {
            self.too_many(at, count, limit);
        }
        if let Some(limit) = rules.min_properties.filter(|limit| count < *limit) {
            let words = format!("should have at least {limit} properties");
            self.invalid(at, value, &words);
        }
        for name in &rules.required {
            if !map.contains_key(name) {
                let at = Trail::Field(at, name);
                self.error(ErrorKind::Required, &at, None, String::new());
            }
        }
    }

    fn text(&mut self, rules: &Rules, text: &str, value: &Value, at: &Trail<'_>) {
        let count = length(text);
        if let Some(limit) = rules.max_length.filter(|limit| count > *limit) {
            let detail = format!("may not be more than {limit} bytes");
            self.error(ErrorKind::TooLong, at, None, detail);
        }
        if let Some(limit) = rules.min_length.filter(|limit| count < *limit) {
            self.invalid(at, value, &format!("should be at least {limit} chars long"));
        }
        if let Some((pattern, regex)) = &rules.pattern
            && !regex.is_match(text)
        {
            self.invalid(at, value, &format!("should match '{pattern}'"));
        }
        if !rules.format.is_empty() && !formats::holds(&rules.format, text) {
            let detail = format!("{at} in body must be of type {}: {text:?}", rules.format);
            self.error(ErrorKind::TypeInvalid, at, Some(value.clone()), detail);
        }
    }

    fn number(&mut self, rules: &Rules, found: f64, value: &Value, at: &Trail<'_>) {
        match rules.maximum {
            Some((limit, false)) if found > limit => {
                let words = format!("should be less than or equal to {}", number(limit));
                self.invalid(at, value, &words);
            }
            Some((limit, true)) if found >= limit => {
                self.invalid(at, value, &format!("should be less than {}", number(limit)));
            }
            _ => {}
        }
        match rules.minimum {
            Some((limit, false)) if found < limit => {
                let words = format!("should be greater than or equal to {}", number(limit));
                self.invalid(at, value, &words);
            }
            Some((limit, true)) if found <= limit => {
                let words = format!("should be greater than {}", number(limit));
                self.invalid(at, value, &words);
            }
            _ => {}
        }
        if let Some(factor) = rules.multiple_of
            && factor > 0.0
            && (found / factor).fract() != 0.0
        {
            self.invalid(
                at,
                value,
                &format!("should be a multiple of {}", number(factor)),
            );
        }
        let fits = match rules.format.as_str() {
            "int32" => value
                .as_i64()
                .is_none_or(|whole| i32::try_from(whole).is_ok()),
            "int64" => !value.is_u64() || value.is_i64(),
            _ => true,
        };
        if !fits {
            let detail = format!(
                "Checked value must be of type integer with format {} in {at}",
                rules.format
            );
            self.error(ErrorKind::Invalid, at, Some(value.clone()), detail);
        }
    }

    /// `allOf`, `anyOf`, `oneOf`, `not`.
    fn quantors(&mut self, rules: &Rules, value: &Value, at: &Trail<'_>) {
        if !rules.all_of.is_empty() {
            let failed: Vec<Vec<FieldError>> = self.tried(&rules.all_of, value, at);
            if failed.iter().any(|errors| !errors.is_empty()) {
                self.composite(at, "must validate all the schemas (allOf)");
                self.errors.extend(failed.into_iter().flatten());
            }
        }
        if !rules.any_of.is_empty() {
            let failed = self.tried(&rules.any_of, value, at);
            if failed.iter().all(|errors| !errors.is_empty()) {
                self.composite(at, "must validate at least one schema (anyOf)");
                self.nearest(failed);
            }
        }
        if !rules.one_of.is_empty() {
            let failed = self.tried(&rules.one_of, value, at);
            match failed.iter().filter(|errors| errors.is_empty()).count() {
                1 => {}
                0 => {
                    self.composite(
                        at,
                        "must validate one and only one schema (oneOf). Found none valid",
                    );
                    self.nearest(failed);
                }
                many => self.composite(
                    at,
                    &format!(
                        "must validate one and only one schema (oneOf). Found {many} valid alternatives"
                    ),
                ),
            }
        }
        if let Some(not) = &rules.not
            && self
                .tried(std::slice::from_ref(&**not), value, at)
                .iter()
                .all(Vec::is_empty)
        {
            self.composite(at, "must not validate the schema (not)");
        }
    }

    /// What each of the schemas has against the value.
    fn tried(&mut self, nodes: &[Node], value: &Value, at: &Trail<'_>) -> Vec<Vec<FieldError>> {
        nodes
            .iter()
            .map(|node| {
                let outer = std::mem::take(&mut self.errors);
                self.value(node, value, None, at);
                std::mem::replace(&mut self.errors, outer)
            })
            .collect()
    }

    /// Kubernetes gives such an error no path of its own.
    fn composite(&mut self, at: &Trail<'_>, words: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(FieldError {
                kind: ErrorKind::Invalid,
                field: "<nil>".to_string(),
                value: Some(Value::from("")),
                detail: format!("\"{at}\" {words}"),
            });
        }
    }

    /// Of the schemas that were tried, what the one that came nearest says.
    fn nearest(&mut self, failed: Vec<Vec<FieldError>>) {
        if let Some(best) = failed.into_iter().min_by_key(Vec::len) {
            self.errors.extend(best);
        }
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
