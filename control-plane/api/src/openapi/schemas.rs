//! The types of the documents.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{descriptions::Descriptions, gvk};
use crate::{
    custom,
    registry::{Kind, Registry},
    schema::{Field, FieldType, ListType, ObjectType, TypeId, schema},
};

/// Any patch.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// Types with a form of their own.
fn special(name: &str) -> Option<Value> {
    Some(match name {
        TIME | MICRO_TIME => json!({"type": "string", "format": "date-time"}),
        QUANTITY => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        INT_OR_STRING => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        FIELDS | RAW_EXTENSION | PATCH => json!({"type": "object"}),
        _ => return None,
    })
}

pub(super) fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

fn open_api_name(id: TypeId) -> String {
    let object = schema().object(id);
    format!("{}.{}", object.open_api_package, object.name)
}

/// A reference to a type by its name in the tables (`core.Pod`).
pub(super) fn named(name: &str) -> Value {
    match schema().id(name) {
        Some(id) => json!({"$ref": reference(&open_api_name(id))}),
        None => json!({"type": "object"}),
    }
}

pub(super) fn type_of(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    let api_version = match group {
        "" => version.to_string(),
        group => format!("{group}/{version}"),
    };
    schema().by_kind(&api_version, kind)
}

/// The name of a type that is no kind of its own (`Scale`, `Eviction`).
pub(super) fn type_name_of(group: &str, version: &str, kind: &str) -> Option<String> {
    type_of(group, version, kind).map(open_api_name)
}

/// The name of a kind's type.
pub(super) fn own_name(kind: &Kind) -> String {
    match schema().id(kind.schema) {
        Some(id) => open_api_name(id),
        None => custom::type_name(kind.group, kind.version, kind.kind),
    }
}

/// A reference to a kind's type.
pub(super) fn own(kind: &Kind) -> Value {
    json!({"$ref": reference(&own_name(kind))})
}

/// The name of the type of a kind's lists.
pub(super) fn list_name(kind: &Kind) -> String {
    match schema().id(kind.schema) {
        Some(id) => format!("{}List", open_api_name(id)),
        None => custom::type_name(kind.group, kind.version, &kind.list_kind()),
    }
}

pub(super) fn list_schema(kind: &Kind) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"allOf": [named("meta.ListMeta")]},
            "items": {"type": "array", "items": {"allOf": [own(kind)]}},
        },
        "x-kubernetes-group-version-kind": [{
            "group": kind.group,
            "version": kind.version,
            "kind": kind.list_kind(),
        }],
    })
}

/// The types and everything that they refer to.
pub(super) fn components(needed: BTreeSet<TypeId>) -> Map<String, Value> {
    let (mut all, mut waiting) = (BTreeSet::new(), needed);
    let mut specials = BTreeSet::from([PATCH]);
    while let Some(id) = waiting.pop_first() {
        if !all.insert(id) {
            continue;
        }
        for field in &schema().object(id).fields {
            let mut field_type = &field.field_type;
            while let FieldType::List(inner) | FieldType::Map(inner) = field_type {
                field_type = inner;
            }
            match field_type {
                FieldType::Object(inner) => {
                    waiting.insert(*inner);
                }
                other => specials.extend(special_name(other)),
            }
        }
    }
    let mut descriptions = Descriptions::default();
    let mut out = Map::new();
    for id in all {
        let schema = object_schema(schema().object(id), &mut descriptions);
        out.insert(open_api_name(id), schema);
    }
    for name in specials {
        let Some(mut schema) = special(name) else {
            continue;
        };
        if let Some((package, short)) = name.rsplit_once('.') {
            describe(&mut schema, descriptions.of_type(package, short));
        }
        out.insert(name.to_string(), schema);
    }
    out
}

fn describe(schema: &mut Value, description: Option<&str>) {
    if let Some(text) = description {
        schema["description"] = Value::from(text);
    }
}

fn special_name(field_type: &FieldType) -> Option<&'static str> {
    Some(match field_type {
        FieldType::Time => TIME,
        FieldType::MicroTime => MICRO_TIME,
        FieldType::Quantity => QUANTITY,
        FieldType::IntOrString => INT_OR_STRING,
        FieldType::FieldsV1 => FIELDS,
        FieldType::Any => RAW_EXTENSION,
        _ => return None,
    })
}

fn object_schema(object: &ObjectType, descriptions: &mut Descriptions) -> Value {
    let package = object.open_api_package;
    let mut properties = Map::new();
    for field in &object.fields {
        let mut schema = field_schema(object, field);
        let description = descriptions.of_field(package, object.name, &field.name);
        describe(&mut schema, description);
        properties.insert(field.name.clone(), schema);
    }
    let mut out = json!({"type": "object", "properties": properties});
    describe(&mut out, descriptions.of_type(package, object.name));
    let required: Vec<&str> = object
        .fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name.as_str())
        .collect();
    if !required.is_empty() {
        out["required"] = json!(required);
    }
    if object.atomic {
        out["x-kubernetes-map-type"] = json!("atomic");
    }
    let name = format!("{}.{}", object.package, object.name);
    let mut kinds: Vec<Value> = Registry::get()
        .kinds()
        .iter()
        .filter(|kind| kind.schema == name)
        .map(|kind| gvk(kind))
        .collect();
    if kinds.is_empty() && object.field("kind").is_some() && object.field("apiVersion").is_some() {
        kinds.extend(own_kind(object));
    }
    if !kinds.is_empty() {
        out["x-kubernetes-group-version-kind"] = Value::Array(kinds);
    }
    out
}

/// Kinds that are only sent to subresources, and options.
fn own_kind(object: &ObjectType) -> Option<Value> {
    // References have these fields too, but no wire form without them.
    let carried = object
        .field("kind")
        .is_some_and(|field| !field.wire.path.is_empty());
    if carried {
        return None;
    }
    let (group, version) = match object.api_version.split_once('/') {
        _ if object.package == "meta" => ("", "v1"),
        Some(pair) => pair,
        None => ("", object.api_version),
    };
    Some(json!({"group": group, "version": version, "kind": object.name}))
}

fn field_schema(object: &ObjectType, field: &Field) -> Value {
    let mut out = if object.open_api_package == EXTENSIONS && field.field_type == FieldType::Any {
        // Any JSON at all.
        json!({})
    } else {
        type_schema(&field.field_type)
    };
    if let Some(default) = &field.default {
        out["default"] = default.clone();
    }
    if field.atomic {
        out["x-kubernetes-map-type"] = json!("atomic");
    }
    if matches!(field.field_type, FieldType::List(_)) {
        match &field.list_type {
            ListType::Atomic => out["x-kubernetes-list-type"] = json!("atomic"),
            ListType::Set => out["x-kubernetes-list-type"] = json!("set"),
            ListType::Map(keys) => {
                out["x-kubernetes-list-type"] = json!("map");
                out["x-kubernetes-list-map-keys"] = json!(keys);
            }
        }
    }
    let mut strategies = Vec::new();
    if field.patch.merge {
        strategies.push("merge");
    }
    if field.patch.replace {
        strategies.push("replace");
    }
    if field.patch.retain_keys {
        strategies.push("retainKeys");
    }
    if !strategies.is_empty() {
        out["x-kubernetes-patch-strategy"] = json!(strategies.join(","));
    }
    if let Some(key) = &field.patch.merge_key {
        out["x-kubernetes-patch-merge-key"] = json!(key);
    }
    out
}

fn type_schema(field_type: &FieldType) -> Value {
    match field_type {
        FieldType::String => json!({"type": "string"}),
        FieldType::Bytes => json!({"type": "string", "format": "byte"}),
        FieldType::Bool => json!({"type": "boolean"}),
        FieldType::Int32 => json!({"type": "integer", "format": "int32"}),
        FieldType::Int64 => json!({"type": "integer", "format": "int64"}),
        FieldType::Float => json!({"type": "number", "format": "double"}),
        FieldType::SchemaOrBool | FieldType::SchemaOrArray | FieldType::SchemaOrStringArray => {
            json!({})
        }
        FieldType::List(inner) => json!({"type": "array", "items": type_schema(inner)}),
        FieldType::Map(inner) => {
            json!({"type": "object", "additionalProperties": type_schema(inner)})
        }
        FieldType::Object(id) => json!({"allOf": [{"$ref": reference(&open_api_name(*id))}]}),
        other => match special_name(other) {
            Some(name) => json!({"allOf": [{"$ref": reference(name)}]}),
            None => json!({}),
        },
    }
}
