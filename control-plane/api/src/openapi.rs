//! The OpenAPI v3 documents, made from the registry and the schema.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    registry::{Kind, Registry},
    schema::{Field, FieldType, ListType, ObjectType, TypeId, schema},
};

const MERGE_PATCHES: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// The index at `/openapi/v3`; `hash` makes each document's address change with its content.
pub fn index(hash: impl Fn(&str, &str) -> String) -> Value {
    let mut paths = Map::new();
    for (group, versions) in Registry::get().groups() {
        for version in versions {
            let path = group_path(group, version);
            let url = format!("/openapi/v3/{path}?hash={}", hash(group, version));
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

/// `api/v1` or `apis/apps/v1`.
pub fn group_path(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

/// The document of one group and version.
pub fn document(group: &str, version: &str) -> Option<Value> {
    let kinds = Registry::get().in_group(group, version);
    if kinds.is_empty() {
        return None;
    }
    let mut needed = BTreeSet::new();
    let mut paths = Map::new();
    for kind in kinds {
        if let Some(id) = schema().id(kind.schema) {
            collect(id, &mut needed);
        }
        add_paths(kind, &mut paths);
    }
    let schemas: Map<String, Value> = needed
        .into_iter()
        .map(|id| (open_api_name(id), object_schema(schema().object(id))))
        .collect();
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn collect(id: TypeId, needed: &mut BTreeSet<TypeId>) {
    if !needed.insert(id) {
        return;
    }
    for field in &schema().object(id).fields {
        let mut field_type = &field.field_type;
        while let FieldType::List(inner) | FieldType::Map(inner) = field_type {
            field_type = inner;
        }
        if let FieldType::Object(inner) = field_type {
            collect(*inner, needed);
        }
    }
}

fn open_api_name(id: TypeId) -> String {
    let object = schema().object(id);
    format!("{}.{}", object.open_api_package, object.name)
}

fn object_schema(object: &ObjectType) -> Value {
    let mut out = json!({
        "type": "object",
        "properties": object.fields.iter().map(|f| (f.name.clone(), field_schema(f))).collect::<Map<_, _>>(),
    });
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
    let gvks: Vec<Value> = Registry::get()
        .kinds()
        .iter()
        .filter(|kind| kind.schema == format!("{}.{}", object.package, object.name))
        .map(|kind| gvk(kind))
        .collect();
    if !gvks.is_empty() {
        out["x-kubernetes-group-version-kind"] = Value::Array(gvks);
    }
    out
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn field_schema(field: &Field) -> Value {
    let mut out = type_schema(&field.field_type);
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
        FieldType::Time | FieldType::MicroTime => json!({"type": "string", "format": "date-time"}),
        FieldType::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        FieldType::IntOrString => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        FieldType::FieldsV1
        | FieldType::Any
        | FieldType::SchemaOrBool
        | FieldType::SchemaOrArray
        | FieldType::SchemaOrStringArray => json!({"type": "object"}),
        FieldType::List(inner) => json!({"type": "array", "items": type_schema(inner)}),
        FieldType::Map(inner) => {
            json!({"type": "object", "additionalProperties": type_schema(inner)})
        }
        FieldType::Object(id) => {
            json!({"allOf": [{"$ref": format!("#/components/schemas/{}", open_api_name(*id))}]})
        }
    }
}

fn query(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
}

fn operation(kind: &Kind, action: &str, parameters: &[&str], body: Option<Value>) -> Value {
    let type_ref = schema().id(kind.schema).map_or(
        json!({"type": "object"}),
        |id| json!({"$ref": format!("#/components/schemas/{}", open_api_name(id))}),
    );
    let mut out = json!({
        "parameters": parameters.iter().map(|name| query(name)).collect::<Vec<_>>(),
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": type_ref}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(kind),
    });
    match (body, action) {
        (Some(body), _) => out["requestBody"] = body,
        (None, "post" | "put") => {
            out["requestBody"] =
                json!({"required": true, "content": {"*/*": {"schema": type_ref}}});
        }
        _ => {}
    }
    out
}

fn add_paths(kind: &Kind, paths: &mut Map<String, Value>) {
    const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
    const LIST: &[&str] = &[
        "allowWatchBookmarks",
        "continue",
        "fieldSelector",
        "labelSelector",
        "limit",
        "resourceVersion",
        "resourceVersionMatch",
        "sendInitialEvents",
        "timeoutSeconds",
        "watch",
    ];
    let base = format!("/{}", group_path(kind.group, kind.version));
    let collection = if kind.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("{base}/{}", kind.plural)
    };
    let patch_body = json!({"required": true, "content": MERGE_PATCHES
        .iter()
        .map(|media| ((*media).to_string(), json!({"schema": {"type": "object"}})))
        .collect::<Map<_, _>>()});
    let mut list = Map::new();
    list.insert("get".into(), operation(kind, "list", LIST, None));
    list.insert("post".into(), operation(kind, "post", WRITE, None));
    if kind.delete_collection {
        list.insert(
            "delete".into(),
            operation(kind, "deletecollection", LIST, None),
        );
    }
    let object = json!({
        "get": operation(kind, "get", &[], None),
        "put": operation(kind, "put", WRITE, None),
        "patch": operation(kind, "patch", WRITE, Some(patch_body.clone())),
        "delete": operation(kind, "delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"], None),
    });
    for subresource in kind.subresources {
        let info = subresource.info();
        if info.name == "status" {
            paths.insert(
                format!("{collection}/{{name}}/status"),
                json!({
                    "get": operation(kind, "get", &[], None),
                    "put": operation(kind, "put", WRITE, None),
                    "patch": operation(kind, "patch", WRITE, Some(patch_body.clone())),
                }),
            );
        }
    }
    if kind.namespaced {
        paths.insert(
            format!("{base}/{}", kind.plural),
            json!({"get": operation(kind, "list", LIST, None)}),
        );
    }
    paths.insert(format!("{collection}/{{name}}"), object);
    paths.insert(collection, Value::Object(list));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_resolves() {
        for (group, versions) in Registry::get().groups() {
            for version in versions {
                let document = document(group, version).unwrap();
                let text = document.to_string();
                for part in text.split("#/components/schemas/").skip(1) {
                    let name = part.split('"').next().unwrap();
                    assert!(
                        document["components"]["schemas"].get(name).is_some(),
                        "{name}"
                    );
                }
            }
        }
        assert!(document("no.such", "v1").is_none());
    }

    #[test]
    fn patch_operations_offer_field_validation() {
        let document = document("", "v1").unwrap();
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
        assert!(
            patch["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["name"] == "fieldValidation")
        );
    }
}
