//! The OpenAPI v2 document: one for all groups, made from those of v3.

use serde_json::{Map, Value, json};

use super::{document, v2_protobuf};
use crate::{custom, registry::Registry};

/// The media type of the protobuf form.
pub const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The same as clients ask for it.
pub const PROTOBUF_ALIAS: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

const V3_PREFIX: &str = "#/components/schemas/";
const V2_PREFIX: &str = "#/definitions/";

/// The document.
pub fn whole(registry: &Registry) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for (group, versions) in registry.groups() {
        for version in versions {
            for kind in registry.in_group(group, version) {
                if let Some(custom) = kind.strategy.custom() {
                    let metadata = super::schemas::named("meta.ObjectMeta");
                    let schema = custom::without_alternatives(custom.published_schema(metadata));
                    definitions.insert(super::schemas::own_name(kind), convert(schema));
                }
            }
            let Some(mut part) = document(registry, group, version) else {
                continue;
            };
            if let Some(Value::Object(schemas)) = part.pointer_mut("/components/schemas") {
                for (name, schema) in std::mem::take(schemas) {
                    definitions.entry(name).or_insert_with(|| convert(schema));
                }
            }
            if let Some(Value::Object(all)) = part.pointer_mut("/paths") {
                for (path, item) in std::mem::take(all) {
                    paths.insert(path, convert_path(item));
                }
            }
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "definitions": definitions,
    })
}

/// The document as gnostic's protobuf message, without its paths.
pub fn protobuf(document: &Value) -> Vec<u8> {
    v2_protobuf::encode(document)
}

/// A schema of v3 in the words of v2.
fn convert(schema: Value) -> Value {
    let Value::Object(map) = schema else {
        return schema;
    };
    let mut out = Map::new();
    for (key, value) in map {
        match (key.as_str(), value) {
            ("$ref", Value::String(text)) => {
                out.insert(key, Value::from(text.replace(V3_PREFIX, V2_PREFIX)));
            }
            // What v3 wraps to have more words beside it.
            ("allOf", Value::Array(mut parts)) if parts.len() == 1 => {
                if let Value::Object(inner) = convert(parts.remove(0)) {
                    out.extend(inner);
                }
            }
            ("oneOf", _) => {
                out.insert("type".to_string(), json!("string"));
            }
            ("properties", Value::Object(properties)) => {
                let properties: Map<String, Value> = properties
                    .into_iter()
                    .map(|(name, schema)| (name, convert(schema)))
                    .collect();
                out.insert(key, Value::Object(properties));
            }
            ("items" | "additionalProperties" | "schema", value) => {
                out.insert(key, convert(value));
            }
            (_, value) => {
                out.insert(key, value);
            }
        }
    }
    Value::Object(out)
}

fn convert_parameter(parameter: Value) -> Value {
    let Value::Object(mut map) = parameter else {
        return parameter;
    };
    if let Some(Value::Object(schema)) = map.remove("schema") {
        map.extend(schema);
    }
    Value::Object(map)
}

fn convert_parameters(parameters: Option<Value>) -> Vec<Value> {
    match parameters {
        Some(Value::Array(list)) => list.into_iter().map(convert_parameter).collect(),
        _ => Vec::new(),
    }
}

/// The schema of the first of the media types, which are all the same.
fn content_schema(holder: &Value) -> Option<Value> {
    let content = holder.get("content")?.as_object()?;
    let schema = content.values().next()?.get("schema")?;
    Some(convert(schema.clone()))
}

fn convert_operation(operation: Value) -> Value {
    let Value::Object(mut map) = operation else {
        return operation;
    };
    let mut parameters = convert_parameters(map.remove("parameters"));
    if let Some(body) = map.remove("requestBody") {
        let media: Vec<String> = body
            .get("content")
            .and_then(Value::as_object)
            .map(|content| content.keys().cloned().collect())
            .unwrap_or_default();
        map.insert("consumes".to_string(), json!(media));
        parameters.push(json!({
            "in": "body",
            "name": "body",
            "required": body.get("required").cloned().unwrap_or(Value::Bool(false)),
            "schema": content_schema(&body),
        }));
    }
    map.insert("parameters".to_string(), Value::Array(parameters));
    if let Some(Value::Object(responses)) = map.get_mut("responses") {
        for response in responses.values_mut() {
            let schema = content_schema(response);
            if let (Value::Object(response), Some(schema)) = (response, schema) {
                response.remove("content");
                response.insert("schema".to_string(), schema);
            }
        }
    }
    map.insert(
        "produces".to_string(),
        json!([
            "application/json",
            "application/vnd.kubernetes.protobuf",
            "application/yaml"
        ]),
    );
    Value::Object(map)
}

fn convert_path(item: Value) -> Value {
    let Value::Object(map) = item else {
        return item;
    };
    map.into_iter()
        .map(|(key, value)| {
            let value = if key == "parameters" {
                Value::Array(convert_parameters(Some(value)))
            } else {
                convert_operation(value)
            };
            (key, value)
        })
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_bodies_are_those_of_version_two() {
        let whole = whole(Registry::get());
        let text = whole.to_string();
        assert!(!text.contains(V3_PREFIX) && !text.contains("requestBody"));
        for part in text.split(V2_PREFIX).skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(whole["definitions"].get(name).is_some(), "{name}");
        }
        let surge = &whole["definitions"]["io.k8s.api.apps.v1.RollingUpdateDeployment"]["properties"]
            ["maxSurge"];
        assert_eq!(
            surge["$ref"],
            "#/definitions/io.k8s.apimachinery.pkg.util.intstr.IntOrString"
        );
        let described = surge["description"].as_str().unwrap();
        assert!(
            described.starts_with("The maximum number of pods"),
            "{described}"
        );
        let put = &whole["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["put"];
        let body = put["parameters"].as_array().unwrap().last().unwrap();
        assert_eq!(
            body["schema"]["$ref"],
            "#/definitions/io.k8s.api.core.v1.Pod"
        );
        let protobuf = protobuf(&whole);
        assert!(protobuf.len() > 100_000);
        let described = described.as_bytes();
        assert!(
            protobuf
                .windows(described.len())
                .any(|part| part == described)
        );
    }
}
