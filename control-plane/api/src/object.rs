//! Access to the parts that every Kubernetes object has, on a plain JSON value.

use serde_json::{Map, Value};

/// Reads and writes the common parts of an object. Absent and wrongly typed parts read as
/// empty; writing creates the maps in between.
pub trait ObjectExt {
    /// The text at a JSON pointer, or "".
    fn str_at(&self, pointer: &str) -> &str;
    /// The integer at a JSON pointer.
    fn int_at(&self, pointer: &str) -> Option<i64>;
    /// The truth value at a JSON pointer, or false.
    fn bool_at(&self, pointer: &str) -> bool;
    /// The list at a JSON pointer, or an empty one.
    fn list_at(&self, pointer: &str) -> &[Value];
    /// The map at a JSON pointer.
    fn map_at(&self, pointer: &str) -> Option<&Map<String, Value>>;
    /// Writes the value at a path of map keys.
    fn set_at(&mut self, path: &[&str], value: Value);
    /// Removes the value at a path of map keys and returns it.
    fn remove_at(&mut self, path: &[&str]) -> Option<Value>;
    /// The map at a path of map keys, created when it is missing or null.
    fn map_mut(&mut self, path: &[&str]) -> &mut Map<String, Value>;

    /// `metadata.name`.
    fn name(&self) -> &str {
        self.str_at("/metadata/name")
    }
    /// `metadata.namespace`.
    fn namespace(&self) -> &str {
        self.str_at("/metadata/namespace")
    }
    /// `metadata.uid`.
    fn uid(&self) -> &str {
        self.str_at("/metadata/uid")
    }
    /// `metadata.resourceVersion`.
    fn resource_version(&self) -> &str {
        self.str_at("/metadata/resourceVersion")
    }
    /// `metadata.deletionTimestamp` is set.
    fn is_deleting(&self) -> bool {
        !self.str_at("/metadata/deletionTimestamp").is_empty()
    }
    /// `metadata.finalizers`.
    fn finalizers(&self) -> &[Value] {
        self.list_at("/metadata/finalizers")
    }
    /// `metadata.labels`.
    fn labels(&self) -> Option<&Map<String, Value>> {
        self.map_at("/metadata/labels")
    }
}

static NO_VALUES: [Value; 0] = [];

impl ObjectExt for Value {
    fn str_at(&self, pointer: &str) -> &str {
        self.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    fn int_at(&self, pointer: &str) -> Option<i64> {
        self.pointer(pointer).and_then(Value::as_i64)
    }

    fn bool_at(&self, pointer: &str) -> bool {
        self.pointer(pointer)
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }

    fn list_at(&self, pointer: &str) -> &[Value] {
        self.pointer(pointer)
            .and_then(Value::as_array)
            .map_or(&NO_VALUES[..], Vec::as_slice)
    }

    fn map_at(&self, pointer: &str) -> Option<&Map<String, Value>> {
        self.pointer(pointer).and_then(Value::as_object)
    }

    fn set_at(&mut self, path: &[&str], value: Value) {
        if let Some((last, parents)) = path.split_last() {
            self.map_mut(parents).insert((*last).to_string(), value);
        }
    }

    fn remove_at(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let mut here = self;
        for key in parents {
            here = here.get_mut(*key)?;
        }
        here.as_object_mut()?.remove(*last)
    }

    fn map_mut(&mut self, path: &[&str]) -> &mut Map<String, Value> {
        let mut here = as_map(self);
        for key in path {
            here = as_map(here.entry((*key).to_string()).or_insert(Value::Null));
        }
        here
    }
}

/// The value as a map; anything else is replaced by an empty one.
fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("the line above made it a map"),
    }
}

/// Inserts `value` under `key` unless something other than null is there.
pub fn default_to(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    match map.get(key) {
        None | Some(Value::Null) => {
            map.insert(key.to_string(), value.into());
        }
        Some(_) => {}
    }
}

/// Like [`default_to`], and an empty text counts as absent.
pub fn default_text(map: &mut Map<String, Value>, key: &str, value: &str) {
    if map
        .get(key)
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        map.insert(key.to_string(), Value::from(value));
    }
}

/// The controller among `metadata.ownerReferences`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    object
        .list_at("/metadata/ownerReferences")
        .iter()
        .find(|owner| owner.bool_at("/controller"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_parts_read_as_empty() {
        let object = json!({"metadata": {"name": "a", "labels": 3}});
        assert_eq!(object.name(), "a");
        assert_eq!(object.namespace(), "");
        assert!(object.labels().is_none());
        assert!(object.list_at("/spec/containers").is_empty());
    }

    #[test]
    fn writing_creates_the_maps_between() {
        let mut object = json!({"spec": null});
        object.set_at(&["spec", "template", "name"], json!("x"));
        assert_eq!(object, json!({"spec": {"template": {"name": "x"}}}));
        assert_eq!(
            object.remove_at(&["spec", "template", "name"]),
            Some(json!("x"))
        );
        assert_eq!(object.remove_at(&["no", "such"]), None);
    }
}
