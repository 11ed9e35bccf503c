//! The types of built-in kinds.

use super::Type;
use crate::schema::{FieldType, TypeId, schema};

impl Type<'static> {
    /// That of a built-in kind's objects.
    pub fn of_kind(api_version: &str, kind: &str) -> Option<Self> {
        schema().by_kind(api_version, kind).map(Type::BuiltIn)
    }
}

/// A field of a built-in type; `None`: it has no such field.
pub(super) fn field(id: TypeId, name: &str) -> Option<Type<'static>> {
    let found = schema().object(id).field(name)?;
    Some(of_field(&found.field_type))
}

fn of_field(field: &FieldType) -> Type<'static> {
    match field {
        FieldType::String | FieldType::Quantity => Type::String,
        FieldType::Bytes => Type::Bytes,
        FieldType::Bool => Type::Bool,
        FieldType::Int32 | FieldType::Int64 => Type::Int,
        FieldType::Float => Type::Double,
        FieldType::Time | FieldType::MicroTime => Type::Timestamp,
        FieldType::List(item) => Type::list(of_field(item)),
        FieldType::Map(value) => Type::map(Type::String, of_field(value)),
        FieldType::Object(id) => Type::BuiltIn(*id),
        FieldType::IntOrString
        | FieldType::FieldsV1
        | FieldType::Any
        | FieldType::SchemaOrBool
        | FieldType::SchemaOrArray
        | FieldType::SchemaOrStringArray => Type::Dyn,
    }
}
