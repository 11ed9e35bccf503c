//! How a value merges, read from the schema tables or from the structural schema of a custom
//! resource.

use serde_json::Value;

use crate::schema::{Field, FieldType, ListType, TypeId, schema};

const DEDUCED: TypeRef<'static> = TypeRef::Deduced;

/// The type of a value.
#[derive(Debug, Clone, Copy)]
pub enum TypeRef<'a> {
    /// A field of a built-in type.
    Field(&'a Field),
    /// An element of a built-in list or map.
    Element(&'a FieldType),
    /// A built-in object.
    Object(TypeId),
    /// A custom resource (its `openAPIV3Schema`).
    CustomRoot(&'a Value),
    /// A part of a custom resource.
    Custom(&'a Value),
    /// Nothing is known: maps merge by key, lists are replaced.
    Deduced,
}

/// How a value of a type merges.
#[derive(Debug, Clone)]
pub(super) enum Shape<'a> {
    /// Replaced whole.
    Leaf,
    /// Known fields, each with its own type.
    Struct,
    /// Merged by key.
    Map(TypeRef<'a>),
    /// A list of unique scalars.
    Set,
    /// A list of objects that these keys identify.
    ListMap(Vec<&'a str>, TypeRef<'a>),
}

impl<'a> TypeRef<'a> {
    /// A built-in type by its name in the schema tables; unknown names are deduced.
    pub fn named(name: &str) -> TypeRef<'static> {
        match schema().id(name) {
            Some(id) => TypeRef::Object(id),
            None => TypeRef::Deduced,
        }
    }

    pub(super) fn shape(self, value: &Value) -> Shape<'a> {
        match self {
            TypeRef::Field(field) if field.atomic => Shape::Leaf,
            TypeRef::Field(field) => shape_of(&field.field_type, &field.list_type, value),
            TypeRef::Element(field_type) => shape_of(field_type, &ListType::Atomic, value),
            TypeRef::Object(id) if schema().object(id).atomic => Shape::Leaf,
            TypeRef::Object(_) | TypeRef::CustomRoot(_) => Shape::Struct,
            TypeRef::Custom(node) => custom_shape(node, value),
            TypeRef::Deduced => deduced(value),
        }
    }

    /// The type of a field that a struct names.
    pub(super) fn field(self, name: &str) -> Option<TypeRef<'a>> {
        match self {
            TypeRef::Object(id) => schema().object(id).field(name).map(TypeRef::Field),
            TypeRef::Field(Field {
                field_type: FieldType::Object(id),
                ..
            })
            | TypeRef::Element(FieldType::Object(id)) => {
                schema().object(*id).field(name).map(TypeRef::Field)
            }
            TypeRef::CustomRoot(_) if name == "metadata" => Some(TypeRef::named("meta.ObjectMeta")),
            TypeRef::CustomRoot(node) | TypeRef::Custom(node) => node
                .get("properties")
                .and_then(|properties| properties.get(name))
                .map(TypeRef::Custom),
            _ => None,
        }
    }

    /// It is `ObjectMeta`.
    pub(super) fn is_metadata(self) -> bool {
        let id = match self {
            TypeRef::Object(id) => id,
            TypeRef::Field(Field {
                field_type: FieldType::Object(id),
                ..
            }) => *id,
            _ => return false,
        };
        schema().object(id).name == "ObjectMeta"
    }

    /// The default of a field, which a key that is not written has.
    pub(super) fn default_of(self, name: &str) -> Option<&'a Value> {
        match self.field(name)? {
            TypeRef::Field(field) => field.default.as_ref(),
            TypeRef::Custom(node) => node.get("default"),
            _ => None,
        }
    }

    /// The field is always written, so that its presence says nothing.
    pub(super) fn is_required(self) -> bool {
        matches!(self, TypeRef::Field(field) if field.required)
    }
}

fn shape_of<'a>(field_type: &'a FieldType, list: &'a ListType, value: &Value) -> Shape<'a> {
    match field_type {
        FieldType::Object(id) if schema().object(*id).atomic => Shape::Leaf,
        FieldType::Object(_) => Shape::Struct,
        FieldType::Map(inner) => Shape::Map(TypeRef::Element(inner)),
        FieldType::List(inner) => match list {
            ListType::Atomic => Shape::Leaf,
            ListType::Set => Shape::Set,
            ListType::Map(keys) => Shape::ListMap(
                keys.iter().map(String::as_str).collect(),
                TypeRef::Element(inner),
            ),
        },
        FieldType::Any => deduced(value),
        _ => Shape::Leaf,
    }
}

fn deduced(value: &Value) -> Shape<'static> {
    if value.is_object() {
        Shape::Map(DEDUCED)
    } else {
        Shape::Leaf
    }
}

fn custom_shape<'a>(node: &'a Value, value: &Value) -> Shape<'a> {
    let word = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or("");
    let embedded = node.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    match word("type") {
        "object" if word("x-kubernetes-map-type") == "atomic" => Shape::Leaf,
        "object" if node.get("properties").is_some() => Shape::Struct,
        "object" => match node.get("additionalProperties") {
            Some(inner) if inner.is_object() => Shape::Map(TypeRef::Custom(inner)),
            _ => deduced(value),
        },
        "array" => {
            let element = node.get("items").map_or(DEDUCED, TypeRef::Custom);
            match word("x-kubernetes-list-type") {
                "set" => Shape::Set,
                "map" => Shape::ListMap(
                    node.get("x-kubernetes-list-map-keys")
                        .and_then(Value::as_array)
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect(),
                    element,
                ),
                _ => Shape::Leaf,
            }
        }
        "" if embedded => deduced(value),
        _ => Shape::Leaf,
    }
}
