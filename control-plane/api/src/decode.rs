//! JSON to [`Value`], noticing what a plain parser forgets: duplicate fields.

use std::{cell::RefCell, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Duplicate fields reported at most per object; the rest is the same mistake again.
const MAX_DUPLICATES: usize = 32;

/// A parsed document.
#[derive(Debug)]
pub struct Decoded {
    /// The value; of duplicate fields the last one.
    pub value: Value,
    /// What strict readers refuse it for, in Kubernetes' words:
    /// `duplicate field "spec.containers[0].name"`.
    pub duplicates: Vec<String>,
}

/// Parses one JSON document. Nesting is limited (128 levels), so that a hostile document
/// cannot exhaust the stack of anything that walks the value later.
pub fn parse_json(bytes: &[u8]) -> Result<Decoded, serde_json::Error> {
    let state = State::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node { state: &state }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Decoded {
        value,
        duplicates: state.duplicates.into_inner(),
    })
}

#[derive(Default)]
struct State {
    path: RefCell<String>,
    duplicates: RefCell<Vec<String>>,
}

impl State {
    /// Appends to the path and returns the length to go back to.
    fn enter(&self, segment: fmt::Arguments<'_>) -> usize {
        let mut path = self.path.borrow_mut();
        let before = path.len();
        // Writing to a String cannot fail.
        let _ = fmt::Write::write_fmt(&mut *path, segment);
        before
    }

    fn leave(&self, length: usize) {
        self.path.borrow_mut().truncate(length);
    }

    fn duplicate(&self) {
        let mut duplicates = self.duplicates.borrow_mut();
        if duplicates.len() < MAX_DUPLICATES {
            let path = self.path.borrow();
            let path = path.trim_start_matches('.');
            duplicates.push(format!("duplicate field {path:?}"));
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'a> {
    state: &'a State,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let length = self.state.enter(format_args!("[{}]", items.len()));
            let next = access.next_element_seed(self)?;
            self.state.leave(length);
            match next {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let length = self.state.enter(format_args!(".{key}"));
            if map.contains_key(&key) {
                self.state.duplicate();
            }
            let value = access.next_value_seed(self)?;
            self.state.leave(length);
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_reported_and_the_last_one_wins() {
        let decoded = parse_json(br#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#).unwrap();
        assert_eq!(decoded.value, json!({"a": 3, "b": [{"c": 2}]}));
        let words = [r#"duplicate field "b[0].c""#, r#"duplicate field "a""#];
        assert_eq!(decoded.duplicates, words);
    }

    #[test]
    fn hostile_documents_are_errors() {
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        for bad in [&b"{"[..], b"{}x", b"\xff", b"{\"a\":1e999}", b"", &deep] {
            assert!(parse_json(bad).is_err());
        }
    }
}
