//! The OpenAPI v2 document as the protobuf message that client-go reads (gnostic's
//! `openapi.v2.Document`): the definitions, which is what clients use it for.

use serde_json::Value;

use crate::protobuf::wire::{put_bytes, put_number};

/// Field numbers of `Document`.
mod document {
    pub const SWAGGER: u32 = 1;
    pub const INFO: u32 = 2;
    pub const PATHS: u32 = 8;
    pub const DEFINITIONS: u32 = 9;
}

/// Field numbers of `Schema`.
mod schema {
    pub const REF: u32 = 1;
    pub const FORMAT: u32 = 2;
    pub const DESCRIPTION: u32 = 4;
    pub const DEFAULT: u32 = 5;
    pub const REQUIRED: u32 = 19;
    pub const ADDITIONAL_PROPERTIES: u32 = 21;
    pub const TYPE: u32 = 22;
    pub const ITEMS: u32 = 23;
    pub const PROPERTIES: u32 = 25;
    pub const VENDOR_EXTENSION: u32 = 31;
}

fn text(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    if let Some(text) = value.and_then(Value::as_str) {
        put_bytes(out, number, text.as_bytes());
    }
}

/// `Any`: a value as YAML, of which JSON is a part.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 2, value.to_string().as_bytes());
    out
}

/// A name and a message.
fn named(name: &str, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    put_bytes(&mut out, 2, message);
    out
}

/// `Definitions` or `Properties`: named schemas.
fn schemas(map: Option<&Value>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in map.and_then(Value::as_object).into_iter().flatten() {
        put_bytes(&mut out, 1, &named(name, &encode_schema(value)));
    }
    out
}

fn encode_schema(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, schema::REF, value.get("$ref"));
    text(&mut out, schema::FORMAT, value.get("format"));
    text(&mut out, schema::DESCRIPTION, value.get("description"));
    if let Some(default) = value.get("default") {
        put_bytes(&mut out, schema::DEFAULT, &any(default));
    }
    for name in value
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        text(&mut out, schema::REQUIRED, Some(name));
    }
    match value.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Vec::new();
            put_number(&mut item, 2, u64::from(*allowed));
            put_bytes(&mut out, schema::ADDITIONAL_PROPERTIES, &item);
        }
        Some(inner) => {
            let mut item = Vec::new();
            put_bytes(&mut item, 1, &encode_schema(inner));
            put_bytes(&mut out, schema::ADDITIONAL_PROPERTIES, &item);
        }
        None => {}
    }
    if let Some(name) = value.get("type").and_then(Value::as_str) {
        let mut item = Vec::new();
        put_bytes(&mut item, 1, name.as_bytes());
        put_bytes(&mut out, schema::TYPE, &item);
    }
    if let Some(items) = value.get("items") {
        let mut item = Vec::new();
        put_bytes(&mut item, 1, &encode_schema(items));
        put_bytes(&mut out, schema::ITEMS, &item);
    }
    if value.get("properties").is_some() {
        put_bytes(
            &mut out,
            schema::PROPERTIES,
            &schemas(value.get("properties")),
        );
    }
    for (key, extension) in value.as_object().into_iter().flatten() {
        if key.starts_with("x-") {
            put_bytes(
                &mut out,
                schema::VENDOR_EXTENSION,
                &named(key, &any(extension)),
            );
        }
    }
    out
}

/// Writes the document.
pub(super) fn encode(whole: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, document::SWAGGER, whole.get("swagger"));
    let mut info = Vec::new();
    text(&mut info, 1, whole.pointer("/info/title"));
    text(&mut info, 2, whole.pointer("/info/version"));
    put_bytes(&mut out, document::INFO, &info);
    put_bytes(&mut out, document::PATHS, b"");
    put_bytes(
        &mut out,
        document::DEFINITIONS,
        &schemas(whole.get("definitions")),
    );
    out
}
