//! Types of expressions: what can be known of them before there are values.
//!
//! ```text
//!  schema.rs, built_in.rs, records.rs ─► Type ─┐
//!  signatures.rs ─ operators and functions ─────┴─► checker.rs ─► the expression's type, or issues
//! ```
//!
//! `dyn` fits everywhere: of what comes from it nothing is known.

mod built_in;
mod checker;
mod records;
mod schema;
mod signatures;

use std::{fmt, sync::Arc};

use crate::{
    custom::Node,
    schema::{TypeId, schema},
};

pub(super) use checker::infer;
pub(super) use signatures::{Known, known};

/// What is nested more deeply is `dyn`: whoever writes expressions owns neither the server's stack
/// nor its time.
const MAX_NESTING: usize = 32;

/// A type.
#[derive(Debug, Clone)]
pub enum Type<'n> {
    /// Anything.
    Dyn,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A whole number without sign.
    Uint,
    /// A floating point number.
    Double,
    /// A text.
    String,
    /// Bytes.
    Bytes,
    /// A moment.
    Timestamp,
    /// A time between moments.
    Duration,
    /// A type.
    Type,
    /// A list of such elements.
    List(Arc<Type<'n>>),
    /// A map: keys and values.
    Map(Arc<Type<'n>>, Arc<Type<'n>>),
    /// Something that may be absent.
    Optional(Arc<Type<'n>>),
    /// An object of a structural schema; true: the root of a resource.
    Object(&'n Node, bool),
    /// An object of a built-in type.
    BuiltIn(TypeId),
    /// An object with known fields.
    Record(Arc<Record<'n>>),
    /// Something that only has functions.
    Opaque(&'static str),
    /// A parameter of a signature.
    Parameter(char),
}

/// Fields by name.
#[derive(Debug, Default)]
pub struct Record<'n> {
    /// As errors call it.
    pub name: &'static str,
    /// Its fields.
    pub fields: Vec<(String, Type<'n>)>,
}

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Dyn => "dyn",
            Type::Null => "null",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "timestamp",
            Type::Duration => "duration",
            Type::Type => "type",
            Type::Object(..) => "object",
            Type::BuiltIn(id) => schema().object(*id).name,
            Type::Record(record) => record.name,
            Type::Opaque(name) => name,
            Type::List(item) => return write!(f, "list({item})"),
            Type::Map(key, value) => return write!(f, "map({key}, {value})"),
            Type::Optional(inner) => return write!(f, "optional_type({inner})"),
            Type::Parameter(name) => return write!(f, "{name}"),
        })
    }
}

impl<'n> Type<'n> {
    /// A list of such elements.
    pub fn list(item: Type<'n>) -> Self {
        Type::List(item.within())
    }

    /// A map. Of a key that holds other values nothing is known: no map has such keys, and their
    /// types would double with every map around them.
    pub fn map(key: Type<'n>, value: Type<'n>) -> Self {
        let key = match key {
            Type::List(_) | Type::Map(..) | Type::Optional(_) => Type::Dyn,
            simple => simple,
        };
        Type::Map(Arc::new(key), value.within())
    }

    /// Something that may be absent; what may be already stays as it is.
    pub fn optional(self) -> Self {
        match self {
            Type::Optional(_) => self,
            other => Type::Optional(other.within()),
        }
    }

    /// As a part of another type.
    fn within(self) -> Arc<Type<'n>> {
        Arc::new(if self.depth() < MAX_NESTING {
            self
        } else {
            Type::Dyn
        })
    }

    /// How many types are within each other here.
    fn depth(&self) -> usize {
        let (mut depth, mut here) = (0, self);
        while let Type::List(inner) | Type::Map(_, inner) | Type::Optional(inner) = here {
            (depth, here) = (depth + 1, inner);
        }
        depth
    }

    /// The variable `authorizer`.
    pub fn authorizer() -> Self {
        Type::Opaque(signatures::AUTHORIZER)
    }

    /// Exactly the same type.
    pub fn is(&self, other: &Type<'_>) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => a.is(b),
            (Type::Map(a, x), Type::Map(b, y)) => a.is(b) && x.is(y),
            (Type::Object(a, x), Type::Object(b, y)) => std::ptr::eq(*a, *b) && x == y,
            (Type::BuiltIn(a), Type::BuiltIn(b)) => a == b,
            (Type::Record(a), Type::Record(b)) => a.name == b.name,
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Parameter(a), Type::Parameter(b)) => a == b,
            (Type::Dyn, Type::Dyn)
            | (Type::Null, Type::Null)
            | (Type::Bool, Type::Bool)
            | (Type::Int, Type::Int)
            | (Type::Uint, Type::Uint)
            | (Type::Double, Type::Double)
            | (Type::String, Type::String)
            | (Type::Bytes, Type::Bytes)
            | (Type::Timestamp, Type::Timestamp)
            | (Type::Duration, Type::Duration)
            | (Type::Type, Type::Type) => true,
            _ => false,
        }
    }

    /// A value of it can be `null`.
    fn is_nullable(&self) -> bool {
        matches!(
            self,
            Type::Null
                | Type::Timestamp
                | Type::Duration
                | Type::Object(..)
                | Type::BuiltIn(_)
                | Type::Record(_)
                | Type::Opaque(_)
                | Type::Optional(_)
        )
    }
}

#[cfg(test)]
mod tests;
