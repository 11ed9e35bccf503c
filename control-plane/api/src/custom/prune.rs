//! Pruning (what the schema does not know is dropped) and defaulting.

use serde_json::{Map, Value};

use super::node::{Additional, Node};
use crate::schema::{self, Report, TypeError};

/// Unknown fields reported at most per object.
const MAX_UNKNOWN: usize = 64;
/// What every resource has beside what its schema says.
const RESOURCE_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops what the schema of a resource does not know, in place, and brings its metadata into
/// form.
///
/// # Errors
/// When the metadata holds values of wrong types.
pub fn prune(node: &Node, object: &mut Value) -> Result<Report, TypeError> {
    let mut pruner = Pruner {
        report: Report::default(),
    };
    pruner.resource(node, object, String::new())?;
    Ok(pruner.report)
}

struct Pruner {
    report: Report,
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_string()
    } else {
        format!("{path}.{name}")
    }
}

impl Pruner {
    fn unknown(&mut self, path: String) {
        if self.report.unknown.len() < MAX_UNKNOWN {
            self.report.unknown.push(path);
        }
    }

    fn resource(&mut self, node: &Node, object: &mut Value, path: String) -> Result<(), TypeError> {
        if let Some(metadata) = object.get_mut("metadata")
            && !metadata.is_null()
        {
            let report = schema::conform_named("meta.ObjectMeta", metadata)?;
            for field in report.unknown {
                self.unknown(join(&path, &format!("metadata.{field}")));
            }
        }
        self.fields(node, object, &path, true)
    }

    fn value(&mut self, node: &Node, value: &mut Value, path: String) -> Result<(), TypeError> {
        match value {
            Value::Object(_) if node.embedded => self.resource(node, value, path),
            Value::Object(_) => self.fields(node, value, &path, false),
            Value::Array(items) => {
                let Some(inner) = &node.items else {
                    return Ok(());
                };
                for (index, item) in items.iter_mut().enumerate() {
                    if item.is_object() || item.is_array() {
                        self.value(inner, item, format!("{path}[{index}]"))?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn fields(
        &mut self,
        node: &Node,
        value: &mut Value,
        path: &str,
        resource: bool,
    ) -> Result<(), TypeError> {
        let Value::Object(map) = value else {
            return Ok(());
        };
        let mut dropped = Vec::new();
        for (key, item) in map.iter_mut() {
            if resource && RESOURCE_FIELDS.contains(&key.as_str()) {
                continue;
            }
            match (node.field(key), &node.additional) {
                (Some(inner), _) => {
                    if item.is_object() || item.is_array() {
                        self.value(inner, item, join(path, key))?;
                    }
                }
                (None, Additional::Any) => {}
                (None, _) if node.preserve_unknown => {}
                (None, _) => {
                    self.unknown(join(path, key));
                    dropped.push(key.clone());
                }
            }
        }
        for key in dropped {
            map.remove(&key);
        }
        Ok(())
    }
}

/// Drops nulls that the schema does not allow, and fills in defaults.
pub fn apply_defaults(node: &Node, value: &mut Value) {
    fields_defaults(node, value, true);
}

fn fields_defaults(node: &Node, value: &mut Value, root: bool) {
    match value {
        Value::Object(map) => {
            drop_nulls(node, map, root);
            if !node.has_defaults && !may_hold_nulls(node) {
                return;
            }
            for (name, inner) in &node.properties {
                if root && RESOURCE_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                if let (Some(default), false) = (&inner.default, map.contains_key(name)) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, item) in map.iter_mut() {
                if root && RESOURCE_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                if let Some(inner) = node.field(name) {
                    fields_defaults(inner, item, false);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = &node.items {
                for item in items {
                    if let (true, false, Some(default)) =
                        (item.is_null(), inner.nullable, &inner.default)
                    {
                        *item = default.clone();
                    }
                    fields_defaults(inner, item, false);
                }
            }
        }
        _ => {}
    }
}

/// It has structure below it, in which nulls may be.
fn may_hold_nulls(node: &Node) -> bool {
    !node.properties.is_empty() || matches!(node.additional, Additional::Schema(_))
}

/// A field that cannot be null and is null counts as absent.
fn drop_nulls(node: &Node, map: &mut Map<String, Value>, root: bool) {
    map.retain(|name, item| {
        let is_meta = root && RESOURCE_FIELDS.contains(&name.as_str());
        let forbids = |inner: &Node| !inner.nullable && has_type(inner);
        is_meta || !item.is_null() || !node.field(name).is_some_and(forbids)
    });
}

/// Without a type anything goes, null too.
fn has_type(node: &Node) -> bool {
    node.value_type.is_some() || node.int_or_string
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        Node::compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 3},
                "note": {"type": "string", "nullable": true},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "ports": {"type": "array", "items": {"type": "object", "properties": {
                    "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}},
                "inner": {"type": "object", "x-kubernetes-embedded-resource": true,
                    "properties": {"spec": {"type": "object", "properties": {"x": {"type": "integer"}}}}},
            }},
        }}))
        .unwrap()
    }

    #[test]
    fn what_the_schema_does_not_know_is_dropped_and_reported() {
        let mut object = json!({"apiVersion": "a/v1", "kind": "A",
            "metadata": {"name": "a", "nope": 1},
            "status": {"x": 1},
            "spec": {"size": 1, "sise": 2, "labels": {"any": "x"},
                "free": {"kept": {"deep": 1}, "known": {"a": "x", "b": 1}},
                "ports": [{"port": 1, "prot": 2}],
                "inner": {"apiVersion": "v1", "kind": "B", "metadata": {"name": "b", "no": 1},
                    "spec": {"x": 1, "y": 2}, "status": {}}}});
        let report = prune(&node(), &mut object).unwrap();
        let mut unknown = report.unknown;
        unknown.sort();
        assert_eq!(
            unknown,
            [
                "metadata.nope",
                "spec.free.known.b",
                "spec.inner.metadata.no",
                "spec.inner.spec.y",
                "spec.inner.status",
                "spec.ports[0].prot",
                "spec.sise",
                "status",
            ]
        );
        assert_eq!(
            object["spec"],
            json!({"size": 1, "labels": {"any": "x"},
                "free": {"kept": {"deep": 1}, "known": {"a": "x"}}, "ports": [{"port": 1}],
                "inner": {"apiVersion": "v1", "kind": "B", "metadata": {"name": "b"}, "spec": {"x": 1}}})
        );
        assert!(prune(&node(), &mut json!({"metadata": {"labels": 3}})).is_err());
    }

    #[test]
    fn defaults_fill_what_is_absent_or_null_and_nullable_nulls_stay() {
        let mut object = json!({"spec": {"size": null, "note": null, "labels": {"a": null, "b": "x"},
            "ports": [{"port": 1}, {"port": 2, "protocol": "UDP"}]}});
        apply_defaults(&node(), &mut object);
        assert_eq!(
            object,
            json!({"spec": {"size": 3, "note": null, "labels": {"b": "x"},
                "ports": [{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "UDP"}]}})
        );
        let mut without_spec = json!({});
        apply_defaults(&node(), &mut without_spec);
        assert_eq!(without_spec, json!({}));
    }
}
