//! Kubernetes' protobuf form of the built-in kinds, to and from JSON values.
//!
//! ```text
//!  "k8s\0" ─ runtime.Unknown { typeMeta { apiVersion, kind }, raw }        envelope
//!                                                             │
//!                 schema tables: number ► field, type ◄───────┤  decode / encode
//!                                                             ▼
//!                                                     serde_json::Value
//! ```
//!
//! There is no code per type: the field numbers are in the schema tables ([`crate::schema`]).
//! What JSON writes in another form than protobuf (times, quantities, numbers or texts, free
//! JSON) is in [`leaf`]. Invariants: any input ends in a value or a [`ProtobufError`], never in
//! a panic, and neither nesting nor the number of values exceeds the limits here.

mod decode;
mod encode;
mod envelope;
mod leaf;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

pub use decode::decode;
pub use encode::{encode, encode_list_item, encode_object, encode_watch_event, list_envelope};
pub use envelope::{Envelope, MAGIC, open};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Deepest nesting of messages.
const MAX_DEPTH: usize = 100;
/// Most values in one object: what a body of a few megabytes honestly holds.
const MAX_VALUES: usize = 1 << 20;

/// Why bytes are not an object, or an object has no protobuf form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The bytes end in the middle of something.
    #[error("unexpected EOF")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// A tag that cannot be.
    #[error("proto: illegal tag {0}")]
    IllegalTag(u64),
    /// A field comes in a form that its type does not have.
    #[error("proto: wrong wireType = {wire_type} for field {field}")]
    WireType {
        /// The field's name.
        field: String,
        /// The form on the wire.
        wire_type: u8,
    },
    /// A field's content is not of its type.
    #[error("proto: field {field}: {why}")]
    Content {
        /// The field's name.
        field: String,
        /// What is wrong.
        why: String,
    },
    /// Nesting without end.
    #[error("proto: nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// More values than a body can honestly hold.
    #[error("proto: more than {MAX_VALUES} values")]
    TooMany,
    /// The bytes do not begin as Kubernetes' protobuf does.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoMagic,
    /// The envelope's content is in another form.
    #[error("content type {0:?} within protobuf is not supported")]
    ContentType(String),
    /// The type is not in the schema.
    #[error("no protobuf form of {0} is known")]
    UnknownType(String),
}
