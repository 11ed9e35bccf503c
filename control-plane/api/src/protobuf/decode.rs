//! Protobuf to JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    MAX_VALUES, ProtobufError,
    leaf::{self, deeper, int32, utf8},
    wire::{Payload, Reader},
};
use crate::schema::{
    Field, FieldType, JSON_SCHEMA, ObjectType, TypeId, WireNode, WireTree, schema,
};

/// Reads a message of the type.
pub fn decode(id: TypeId, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut decoder = Decoder { values: 0 };
    let mut map = Map::new();
    decoder.message(id, bytes, &mut map, 0)?;
    Ok(Value::Object(map))
}

struct Decoder {
    /// Values made so far.
    values: usize,
}

fn wrong(field: &str, payload: Payload<'_>) -> ProtobufError {
    ProtobufError::WireType {
        field: field.to_string(),
        wire_type: payload.wire_type(),
    }
}

fn bytes_of<'a>(field: &str, payload: Payload<'a>) -> Result<&'a [u8], ProtobufError> {
    match payload {
        Payload::Bytes(bytes) => Ok(bytes),
        other => Err(wrong(field, other)),
    }
}

/// What Go's `omitempty` leaves out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

impl Decoder {
    fn count(&mut self) -> Result<(), ProtobufError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(ProtobufError::TooMany);
        }
        Ok(())
    }

    fn message(
        &mut self,
        id: TypeId,
        bytes: &[u8],
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let object = schema().object(id);
        self.tree(object, &object.wire, bytes, map, deeper(depth)?)
    }

    fn tree(
        &mut self,
        object: &ObjectType,
        tree: &WireTree,
        bytes: &[u8],
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.field()? {
            match tree.node(number) {
                // A field of a newer version: Go skips it too.
                None => {}
                Some(WireNode::Inline(inner)) => {
                    let bytes = bytes_of("", payload)?;
                    self.tree(object, inner, bytes, map, deeper(depth)?)?;
                }
                Some(WireNode::Field(position)) => {
                    if let Some(field) = object.fields.get(*position) {
                        self.field(field, payload, map, depth)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        payload: Payload<'_>,
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let name = field.name.as_str();
        match &field.field_type {
            FieldType::List(inner) => {
                let slot = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = slot {
                    self.element(inner, name, payload, items, depth)?;
                }
            }
            FieldType::Map(inner) => {
                let slot = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(entries) = slot {
                    self.entry(inner, name, bytes_of(name, payload)?, entries, depth)?;
                }
            }
            FieldType::Object(id) => {
                self.count()?;
                let bytes = bytes_of(name, payload)?;
                // A message that comes twice is merged.
                let slot = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(inner) = slot {
                    self.message(*id, bytes, inner, depth)?;
                }
            }
            field_type => {
                let keep_zero = field.required || field.wire.explicit_zero;
                match self.value(field_type, name, payload, depth)? {
                    Some(value) if keep_zero || is_composite(field_type) || !is_zero(&value) => {
                        map.insert(name.to_string(), value);
                    }
                    _ => {
                        map.remove(name);
                    }
                }
            }
        }
        Ok(())
    }

    fn element(
        &mut self,
        inner: &FieldType,
        name: &str,
        payload: Payload<'_>,
        items: &mut Vec<Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let packed = matches!(inner, FieldType::Int32 | FieldType::Int64 | FieldType::Bool);
        if let (true, Payload::Bytes(bytes)) = (packed, payload) {
            let mut reader = Reader::new(bytes);
            while !reader.is_empty() {
                let number = Payload::Varint(reader.varint()?);
                items.extend(self.value(inner, name, number, depth)?);
            }
            return Ok(());
        }
        let value = self.value(inner, name, payload, depth)?;
        items.push(value.unwrap_or(Value::Null));
        Ok(())
    }

    fn entry(
        &mut self,
        inner: &FieldType,
        name: &str,
        bytes: &[u8],
        entries: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let (mut key, mut content) = ("", None);
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.field()? {
            match number {
                1 => key = utf8(name, bytes_of(name, payload)?)?,
                2 => content = Some(payload),
                _ => {}
            }
        }
        let absent = match inner {
            FieldType::Bool | FieldType::Int32 | FieldType::Int64 => Payload::Varint(0),
            FieldType::Float => Payload::Fixed64(0),
            _ => Payload::Bytes(&[]),
        };
        let value = self.value(inner, name, content.unwrap_or(absent), deeper(depth)?)?;
        entries.insert(key.to_string(), value.unwrap_or(Value::Null));
        Ok(())
    }

    /// A single value; `None`: it stands for absence.
    fn value(
        &mut self,
        field_type: &FieldType,
        name: &str,
        payload: Payload<'_>,
        depth: usize,
    ) -> Result<Option<Value>, ProtobufError> {
        self.count()?;
        Ok(Some(match (field_type, payload) {
            (FieldType::String, Payload::Bytes(bytes)) => Value::from(utf8(name, bytes)?),
            (FieldType::Bytes, Payload::Bytes(bytes)) => Value::from(STANDARD.encode(bytes)),
            (FieldType::Bool, Payload::Varint(value)) => Value::Bool(value != 0),
            (FieldType::Int32, Payload::Varint(value)) => Value::from(int32(name, value)?),
            (FieldType::Int64, Payload::Varint(value)) => Value::from(value.cast_signed()),
            (FieldType::Float, Payload::Fixed64(bits)) => {
                let number = serde_json::Number::from_f64(f64::from_bits(bits));
                let why = "it is no finite number".to_string();
                let field = name.to_string();
                Value::Number(number.ok_or(ProtobufError::Content { field, why })?)
            }
            (FieldType::Object(id), Payload::Bytes(bytes)) => {
                let mut map = Map::new();
                self.message(*id, bytes, &mut map, depth)?;
                Value::Object(map)
            }
            (FieldType::List(inner), Payload::Bytes(bytes)) => {
                self.wrapped_list(inner, name, bytes, depth)?
            }
            (
                FieldType::SchemaOrBool | FieldType::SchemaOrArray | FieldType::SchemaOrStringArray,
                Payload::Bytes(bytes),
            ) => self.schema_or(field_type, name, bytes, depth)?,
            (
                FieldType::Time
                | FieldType::MicroTime
                | FieldType::Quantity
                | FieldType::IntOrString
                | FieldType::FieldsV1
                | FieldType::Any,
                Payload::Bytes(bytes),
            ) => return leaf::decode(field_type, name, bytes),
            (_, payload) => return Err(wrong(name, payload)),
        }))
    }

    /// A list within a map or list: a message with the list in its field 1.
    fn wrapped_list(
        &mut self,
        inner: &FieldType,
        name: &str,
        bytes: &[u8],
        depth: usize,
    ) -> Result<Value, ProtobufError> {
        let depth = deeper(depth)?;
        let mut items = Vec::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.field()? {
            if number == 1 {
                self.element(inner, name, payload, &mut items, depth)?;
            }
        }
        Ok(Value::Array(items))
    }

    /// A schema, or what may stand in its place.
    fn schema_or(
        &mut self,
        field_type: &FieldType,
        name: &str,
        bytes: &[u8],
        depth: usize,
    ) -> Result<Value, ProtobufError> {
        let depth = deeper(depth)?;
        let id = schema()
            .id(JSON_SCHEMA)
            .ok_or_else(|| ProtobufError::UnknownType(JSON_SCHEMA.to_string()))?;
        let schema_type = FieldType::Object(id);
        let (schema_number, item_type) = match field_type {
            FieldType::SchemaOrBool => (2, None),
            FieldType::SchemaOrArray => (1, Some(&schema_type)),
            _ => (1, Some(&FieldType::String)),
        };
        let (mut schema_value, mut allows, mut items) = (None, false, Vec::new());
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.field()? {
            match (number, item_type) {
                (number, _) if number == schema_number => {
                    schema_value = self.value(&schema_type, name, payload, depth)?;
                }
                (1, None) => allows = matches!(payload, Payload::Varint(value) if value != 0),
                (2, Some(item)) => self.element(item, name, payload, &mut items, depth)?,
                _ => {}
            }
        }
        Ok(match (schema_value, item_type) {
            (Some(value), _) => value,
            (None, None) => Value::Bool(allows),
            (None, Some(_)) => Value::Array(items),
        })
    }
}

/// Its message is written only when it is there: it has no zero to leave out.
fn is_composite(field_type: &FieldType) -> bool {
    !matches!(
        field_type,
        FieldType::String
            | FieldType::Bytes
            | FieldType::Bool
            | FieldType::Int32
            | FieldType::Int64
            | FieldType::Float
    )
}
