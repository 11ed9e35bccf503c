//! What the OpenAPI documents say about a custom resource.

use serde_json::{Map, Value, json};

use super::CustomResource;

/// The name of the type: the group's parts in reverse, version and kind.
pub fn type_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').rev().collect();
    parts.push(version);
    parts.push(kind);
    parts.join(".")
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

impl CustomResource {
    /// The schema as published; `metadata` refers to `ObjectMeta`.
    pub fn published_schema(&self, metadata: Value) -> Value {
        let mut schema = self.schema.clone();
        let Value::Object(map) = &mut schema else {
            return json!({"type": "object"});
        };
        map.entry("type").or_insert_with(|| json!("object"));
        let properties = map
            .entry("properties")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(properties) = properties {
            properties.insert(
                "apiVersion".into(),
                json!({"type": "string", "description": API_VERSION}),
            );
            properties.insert(
                "kind".into(),
                json!({"type": "string", "description": KIND}),
            );
            properties.insert(
                "metadata".into(),
                json!({"allOf": [metadata], "description": METADATA}),
            );
        }
        map.insert(
            "x-kubernetes-group-version-kind".into(),
            json!([{"group": self.group, "version": self.version, "kind": self.kind}]),
        );
        schema
    }
}

/// What version two has no words for: alternatives, null, and types that are two at once. A
/// schema says less then, never something wrong.
pub fn without_alternatives(schema: Value) -> Value {
    let Value::Object(mut map) = schema else {
        return schema;
    };
    let is = |map: &Map<String, Value>, word: &str| map.get(word) == Some(&Value::Bool(true));
    let nullable = is(&map, "nullable");
    let open = is(&map, "x-kubernetes-preserve-unknown-fields");
    for word in ["anyOf", "oneOf", "not", "nullable", "default"] {
        map.remove(word);
    }
    // One `allOf` around a reference is the other version's form of a reference.
    if map
        .get("allOf")
        .is_some_and(|all| all.pointer("/0/$ref").is_none())
    {
        map.remove("allOf");
    }
    if nullable || open || is(&map, "x-kubernetes-int-or-string") {
        for word in ["type", "items", "properties", "additionalProperties"] {
            map.remove(word);
        }
    }
    for (word, value) in &mut map {
        let inner = std::mem::take(value);
        *value = match (word.as_str(), inner) {
            ("properties", Value::Object(fields)) => fields
                .into_iter()
                .map(|(name, field)| (name, without_alternatives(field)))
                .collect::<Map<_, _>>()
                .into(),
            ("items" | "additionalProperties", inner) => without_alternatives(inner),
            (_, inner) => inner,
        };
    }
    Value::Object(map)
}
