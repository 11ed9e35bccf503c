use serde_json::{Map, Value, json};

use super::*;
use crate::schema::{Field, FieldType, JSON_SCHEMA, TypeId, schema};

/// A small random number generator: the same objects in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let at = usize::try_from(self.next(from.len() as u64)).unwrap();
        from[at].clone()
    }

    /// An object of the type in the form that decoding gives.
    fn object(&mut self, id: TypeId, depth: u32) -> Value {
        let mut map = Map::new();
        for field in &schema().object(id).fields {
            if field.wire.path.is_empty() || self.next(3) == 0 {
                continue;
            }
            if let Some(value) = self.field(field, depth) {
                map.insert(field.name.clone(), value);
            }
        }
        Value::Object(map)
    }

    fn field(&mut self, field: &Field, depth: u32) -> Option<Value> {
        let zero_is_kept = field.required || field.wire.explicit_zero;
        let value = self.value(&field.field_type, depth)?;
        match &value {
            Value::Array(items) if items.is_empty() => None,
            Value::Object(map)
                if map.is_empty() && matches!(field.field_type, FieldType::Map(_)) =>
            {
                None
            }
            Value::Bool(false) if !zero_is_kept && field.field_type == FieldType::Bool => None,
            Value::String(text) if text.is_empty() && !zero_is_kept => {
                matches!(field.field_type, FieldType::IntOrString).then_some(value)
            }
            Value::Number(number) if number.as_f64() == Some(0.0) && !zero_is_kept => {
                matches!(field.field_type, FieldType::IntOrString).then_some(value)
            }
            _ => Some(value),
        }
    }

    fn value(&mut self, field_type: &FieldType, depth: u32) -> Option<Value> {
        let texts = ["", "a", "ein Wört", "x\u{0}y"];
        Some(match field_type {
            FieldType::String => json!(self.pick(&texts)),
            FieldType::Bytes => json!(self.pick(&["", "AA==", "aGVsbG8="])),
            FieldType::Bool => json!(self.next(2) == 0),
            FieldType::Int32 => json!(self.pick(&[0, 1, -1, i32::MAX, i32::MIN])),
            FieldType::Int64 => json!(self.pick(&[0, 1, -1, i64::MAX, i64::MIN])),
            FieldType::Float => json!(self.pick(&[0.0, 1.5, -2e300])),
            FieldType::Time => {
                json!(self.pick(&["2026-11-22T08:00:00Z", "1969-12-31T23:59:59Z"]))
            }
            FieldType::MicroTime => json!("2026-11-22T08:00:00.000123Z"),
            FieldType::Quantity => json!(self.pick(&["0", "100m", "1Gi"])),
            FieldType::IntOrString => self.pick(&[json!(0), json!(-80), json!(""), json!("25%")]),
            FieldType::FieldsV1 | FieldType::Any => json!({"f:a": {".": {}}, "n": [1, null]}),
            FieldType::List(inner) => (0..self.next(3))
                .map(|_| self.value(inner, depth))
                .collect::<Option<_>>()?,
            FieldType::Map(inner) => Value::Object(
                (0..self.next(3))
                    .map(|n| Some((format!("k{n}"), self.value(inner, depth)?)))
                    .collect::<Option<_>>()?,
            ),
            FieldType::Object(_) | FieldType::SchemaOrBool | FieldType::SchemaOrArray
                if depth == 0 =>
            {
                return None;
            }
            FieldType::Object(id) => self.object(*id, depth - 1),
            FieldType::SchemaOrBool if self.next(2) == 0 => json!(self.next(2) == 0),
            FieldType::SchemaOrArray if self.next(2) == 0 => {
                json!([self.object(schema().id(JSON_SCHEMA).unwrap(), depth - 1)])
            }
            FieldType::SchemaOrStringArray => json!(["a", ""]),
            FieldType::SchemaOrBool | FieldType::SchemaOrArray => {
                self.object(schema().id(JSON_SCHEMA).unwrap(), depth - 1)
            }
        })
    }
}

const SEEDS: u64 = 6;
const NESTING: u32 = 4;

#[test]
fn every_type_comes_back_as_it_was_written() {
    for id in 0..schema().types().len() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ id as u64);
        for _ in 0..SEEDS {
            let object = random.object(id, NESTING);
            let bytes = encode(id, &object).unwrap();
            let name = schema().object(id).name;
            assert_eq!(decode(id, &bytes).unwrap(), object, "{name}");
        }
    }
}

#[test]
fn truncated_and_garbled_bytes_are_errors_or_values() {
    let pod = schema().id("core.Pod").unwrap();
    let mut random = Random(42);
    let bytes = encode(pod, &random.object(pod, NESTING)).unwrap();
    let mut refused = 0;
    for end in 0..bytes.len() {
        refused += u32::from(decode(pod, &bytes[..end]).is_err());
    }
    assert!(refused > 0);
    for _ in 0..20_000 {
        let mut garbled = bytes.clone();
        for _ in 0..=random.next(4) {
            let at = usize::try_from(random.next(bytes.len() as u64)).unwrap();
            garbled[at] = u8::try_from(random.next(256)).unwrap();
        }
        let _ = decode(pod, &garbled);
        let _ = open(&garbled);
    }
}

#[test]
fn hostile_messages_are_refused() {
    let pod = schema().id("core.Pod").unwrap();
    // A schema within a schema within a schema …
    let nested = schema().id(JSON_SCHEMA).unwrap();
    let not = schema().object(nested).field("not").unwrap().wire.path[0];
    let mut bytes = Vec::new();
    for _ in 0..2 * MAX_DEPTH {
        let mut outer = Vec::new();
        wire::put_bytes(&mut outer, not, &bytes);
        bytes = outer;
    }
    assert_eq!(decode(nested, &bytes), Err(ProtobufError::TooDeep));
    // Millions of empty containers.
    let containers = [0x12, 0x02].repeat(MAX_VALUES);
    let mut spec = Vec::new();
    wire::put_bytes(&mut spec, 2, &[0x12, 0].repeat(MAX_VALUES + 1));
    assert_eq!(decode(pod, &spec), Err(ProtobufError::TooMany));
    assert_eq!(decode(pod, &containers[..3]), Err(ProtobufError::Truncated));
    for (bytes, error) in [
        (&[0x0a, 0xff][..], ProtobufError::Truncated),
        (&[0xff; 11][..], ProtobufError::Overflow),
        (&[0x03][..], ProtobufError::IllegalTag(3)),
        (
            &[0x08, 0x01][..],
            ProtobufError::WireType {
                field: "metadata".to_string(),
                wire_type: 0,
            },
        ),
    ] {
        assert_eq!(decode(pod, bytes), Err(error));
    }
    assert_eq!(open(b"{}"), Err(ProtobufError::NoMagic));
}

#[test]
fn flattened_messages_are_nested_on_the_wire() {
    let volume = schema().id("core.Volume").unwrap();
    let object = json!({"name": "v", "emptyDir": {}});
    let bytes = encode(volume, &object).unwrap();
    assert_eq!(bytes, [0x0a, 1, b'v', 0x12, 2, 0x12, 0]);
    assert_eq!(decode(volume, &bytes).unwrap(), object);
}

#[test]
fn zeros_that_go_leaves_out_are_left_out() {
    // Go writes every field without a pointer: name "", generation 0.
    let deployment = schema().id("apps.DeploymentSpec").unwrap();
    let bytes = [0x08, 0, 0x28, 0, 0x38, 0];
    assert_eq!(decode(deployment, &bytes).unwrap(), json!({"replicas": 0}));
    let meta = schema().id("meta.ObjectMeta").unwrap();
    // creationTimestamp as an empty message: no time at all.
    assert_eq!(
        decode(meta, &[0x0a, 0, 0x12, 0, 0x38, 0, 0x42, 0]).unwrap(),
        json!({})
    );
}

#[test]
fn objects_lists_and_watch_events_have_their_envelopes() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let bytes = encode_object(&map).unwrap();
    let envelope = open(&bytes).unwrap();
    assert_eq!((envelope.api_version, envelope.kind), ("v1", "ConfigMap"));
    let id = schema().id("core.ConfigMap").unwrap();
    assert_eq!(
        decode(id, envelope.raw).unwrap(),
        json!({"metadata": {"name": "a"}, "data": {"k": "v"}})
    );
    let mut items = Vec::new();
    for _ in 0..2 {
        encode_list_item(id, &map, &mut items).unwrap();
    }
    let metadata = json!({"resourceVersion": "7"});
    let (mut list, tail) = list_envelope("v1", "ConfigMapList", &metadata, items.len()).unwrap();
    list.extend_from_slice(&items);
    list.extend_from_slice(&tail);
    let envelope = open(&list).unwrap();
    assert_eq!(envelope.kind, "ConfigMapList");
    // The second item ends the content: its length in the envelope is right.
    assert!(envelope.raw.ends_with(&items));
    let frame = encode_watch_event("ADDED", &bytes);
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), frame.len() - 4);
    let status = json!({"apiVersion": "v1", "kind": "Status", "code": 404});
    assert!(encode_object(&status).is_ok());
    assert!(encode_object(&json!({"apiVersion": "x/v1", "kind": "Y"})).is_err());
}
