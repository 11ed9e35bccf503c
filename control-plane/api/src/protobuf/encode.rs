//! JSON to protobuf.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    ProtobufError,
    envelope::{envelope_around, seal},
    leaf, wire,
};
use crate::schema::{FieldType, JSON_SCHEMA, ObjectType, TypeId, WireNode, WireTree, schema};

/// Writes the message of an object.
pub fn encode(id: TypeId, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::new();
    message(id, object, "", &mut out, 0)?;
    Ok(out)
}

fn text_at<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}

/// Writes an object in its envelope, by its own `apiVersion` and `kind`.
pub fn encode_object(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let (api_version, kind) = (text_at(object, "apiVersion"), text_at(object, "kind"));
    let id = schema()
        .by_kind(api_version, kind)
        .ok_or_else(|| ProtobufError::UnknownType(format!("{api_version}, Kind={kind}")))?;
    Ok(seal(api_version, kind, &encode(id, object)?))
}

/// Writes one item of a list as it stands between [`list_envelope`]'s parts.
pub fn encode_list_item(
    item_type: TypeId,
    item: &Value,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    wire::put_bytes(out, 2, &encode(item_type, item)?);
    Ok(())
}

/// What goes before and after the items of a list, which are `items_bytes` bytes as
/// [`encode_list_item`] writes them: the envelope of a `KINDList` and the list's metadata.
pub fn list_envelope(
    api_version: &str,
    list_kind: &str,
    metadata: &Value,
    items_bytes: usize,
) -> Result<(Vec<u8>, Vec<u8>), ProtobufError> {
    let mut first = Vec::new();
    if let Some(id) = schema().id("meta.ListMeta") {
        wire::put_bytes(&mut first, 1, &encode(id, metadata)?);
    }
    let (mut head, tail) = envelope_around(api_version, list_kind, first.len() + items_bytes);
    head.extend_from_slice(&first);
    Ok((head, tail))
}

/// Writes one frame of a watch: its length in four bytes, then a `WatchEvent` that holds the
/// object in its envelope.
pub fn encode_watch_event(event: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Vec::with_capacity(object.len() + 8);
    wire::put_bytes(&mut extension, 1, object);
    let mut frame = vec![0; 4];
    wire::put_bytes(&mut frame, 1, event.as_bytes());
    wire::put_bytes(&mut frame, 2, &extension);
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

fn wrong(field: &str) -> ProtobufError {
    ProtobufError::Content {
        field: field.to_string(),
        why: "it is of the wrong type".to_string(),
    }
}

fn message(
    id: TypeId,
    value: &Value,
    field: &str,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let depth = leaf::deeper(depth)?;
    let Value::Object(map) = value else {
        return Err(wrong(field));
    };
    let object = schema().object(id);
    tree(object, &object.wire, map, out, depth)
}

fn tree(
    object: &ObjectType,
    tree_of: &WireTree,
    map: &Map<String, Value>,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    for (number, node) in &tree_of.0 {
        match node {
            WireNode::Inline(inner) => {
                let mut bytes = Vec::new();
                tree(object, inner, map, &mut bytes, depth)?;
                if !bytes.is_empty() {
                    wire::put_bytes(out, *number, &bytes);
                }
            }
            WireNode::Field(position) => {
                let Some(field) = object.fields.get(*position) else {
                    continue;
                };
                match map.get(&field.name) {
                    None | Some(Value::Null) => {}
                    Some(value) => {
                        put(&field.field_type, *number, value, &field.name, out, depth)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Writes a field: of a list or map every element.
fn put(
    field_type: &FieldType,
    number: u32,
    value: &Value,
    name: &str,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match (field_type, value) {
        (FieldType::List(inner), Value::Array(items)) => {
            for item in items {
                single(inner, number, item, name, out, depth)?;
            }
            Ok(())
        }
        (FieldType::Map(inner), Value::Object(entries)) => {
            for (key, item) in entries {
                let mut entry = Vec::new();
                wire::put_bytes(&mut entry, 1, key.as_bytes());
                single(inner, 2, item, name, &mut entry, leaf::deeper(depth)?)?;
                wire::put_bytes(out, number, &entry);
            }
            Ok(())
        }
        _ => single(field_type, number, value, name, out, depth),
    }
}

fn single(
    field_type: &FieldType,
    number: u32,
    value: &Value,
    name: &str,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match (field_type, value) {
        (FieldType::String, Value::String(text)) => wire::put_bytes(out, number, text.as_bytes()),
        (FieldType::Bytes, Value::String(text)) => {
            let bytes = STANDARD.decode(text).map_err(|_| wrong(name))?;
            wire::put_bytes(out, number, &bytes);
        }
        (FieldType::Bool, Value::Bool(value)) => wire::put_number(out, number, u64::from(*value)),
        (FieldType::Int32 | FieldType::Int64, Value::Number(value)) => {
            let value = value.as_i64().ok_or_else(|| wrong(name))?;
            wire::put_number(out, number, value.cast_unsigned());
        }
        (FieldType::Float, Value::Number(value)) => {
            let value = value.as_f64().ok_or_else(|| wrong(name))?;
            wire::put_fixed64(out, number, value.to_bits());
        }
        (FieldType::Object(id), value) => {
            let mut bytes = Vec::new();
            if !value.is_null() {
                message(*id, value, name, &mut bytes, depth)?;
            }
            wire::put_bytes(out, number, &bytes);
        }
        // A list within a map or list: a message with the list in its field 1.
        (FieldType::List(_), value) => {
            let mut bytes = Vec::new();
            put(field_type, 1, value, name, &mut bytes, leaf::deeper(depth)?)?;
            wire::put_bytes(out, number, &bytes);
        }
        (
            FieldType::SchemaOrBool | FieldType::SchemaOrArray | FieldType::SchemaOrStringArray,
            value,
        ) => wire::put_bytes(out, number, &schema_or(field_type, value, name, depth)?),
        // An absent element of a list (a time that is null).
        (_, Value::Null) => wire::put_bytes(out, number, b""),
        (field_type, value) => {
            wire::put_bytes(out, number, &leaf::encode(field_type, name, value)?);
        }
    }
    Ok(())
}

fn schema_or(
    field_type: &FieldType,
    value: &Value,
    name: &str,
    depth: usize,
) -> Result<Vec<u8>, ProtobufError> {
    let depth = leaf::deeper(depth)?;
    let id = schema()
        .id(JSON_SCHEMA)
        .ok_or_else(|| ProtobufError::UnknownType(JSON_SCHEMA.to_string()))?;
    let schema_type = FieldType::Object(id);
    let mut out = Vec::new();
    match (field_type, value) {
        (FieldType::SchemaOrBool, Value::Bool(allows)) => {
            wire::put_number(&mut out, 1, u64::from(*allows));
        }
        (FieldType::SchemaOrBool, value) => {
            // Where there is a schema, more than it is allowed by definition.
            wire::put_number(&mut out, 1, 1);
            single(&schema_type, 2, value, name, &mut out, depth)?;
        }
        (FieldType::SchemaOrArray, Value::Array(items)) => {
            for item in items {
                single(&schema_type, 2, item, name, &mut out, depth)?;
            }
        }
        (_, Value::Array(items)) => {
            for item in items {
                single(&FieldType::String, 2, item, name, &mut out, depth)?;
            }
        }
        (_, value) => single(&schema_type, 1, value, name, &mut out, depth)?,
    }
    Ok(out)
}
