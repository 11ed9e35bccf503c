//! The types that structural schemas declare.

use std::sync::Arc;

use super::{Record, Type};
use crate::{
    cel::value::unescape,
    custom::{Additional, Node, ValueType},
};

impl<'n> Type<'n> {
    /// What a schema declares; `None`: nothing that rules can see. `is_root`: it is that of a
    /// resource, which has `apiVersion`, `kind` and `metadata`.
    pub fn of_schema(node: &'n Node, is_root: bool) -> Option<Self> {
        if node.int_or_string {
            return Some(Type::Dyn);
        }
        let format = node
            .rules
            .as_ref()
            .map_or("", |rules| rules.format.as_str());
        match node.value_type {
            None => is_root.then_some(Type::Object(node, true)),
            Some(ValueType::Boolean) => Some(Type::Bool),
            Some(ValueType::Integer) => Some(Type::Int),
            Some(ValueType::Number) => Some(Type::Double),
            Some(ValueType::String) => Some(match format {
                "byte" => Type::Bytes,
                "duration" => Type::Duration,
                "date" | "date-time" => Type::Timestamp,
                _ => Type::String,
            }),
            Some(ValueType::Array) => {
                let items = node.items.as_deref()?;
                Some(Type::list(Self::of_schema(items, items.embedded)?))
            }
            Some(ValueType::Object) => match &node.additional {
                Additional::Schema(values) => {
                    let values = Self::of_schema(values, values.embedded)?;
                    Some(Type::map(Type::String, values))
                }
                _ => Some(Type::Object(node, is_root)),
            },
        }
    }

    /// A field of an object; `None`: it has no such field.
    pub(super) fn of_field(node: &'n Node, is_root: bool, field: &str) -> Option<Self> {
        let name = unescape(field);
        match name.as_str() {
            "apiVersion" | "kind" if is_root => return Some(Type::String),
            "metadata" if is_root => return Some(metadata()),
            _ => {}
        }
        let found = node.properties.get(&name);
        let found = found.or_else(|| node.properties.get(field))?;
        Self::of_schema(found, found.embedded)
    }
}

/// What rules see of a resource's metadata.
fn metadata<'n>() -> Type<'n> {
    let fields = ["name", "generateName"];
    Type::Record(Arc::new(Record {
        name: "object",
        fields: fields.map(|name| (name.to_string(), Type::String)).to_vec(),
    }))
}
