//! Custom resources: kinds that come and go while the server runs.
//!
//! ```text
//!  CustomResourceDefinition ─ check ──► is the schema structural
//!        │
//!        └─ definition ──► one CustomResource per served version
//!                             node      the schema in a form that can be walked
//!                             prune     unknown fields out, defaults in
//!                             attach    x-kubernetes-validations (crate::cel), compiled
//!                             rules     the same, checked
//!                             validate  values, lists, embedded resources
//!                             columns   what kubectl prints (json_path)
//!                             scale     where the replicas are
//!                                │
//!  kinds: the [`crate::Kind`] that the server routes on, with a strategy that asks the
//!         CustomResource of the moment
//! ```
//!
//! A [`crate::Kind`] lives as long as the process, as the built-in ones do. So one is made for
//! everything that clients can tell apart (names, scope, subresources) and found again when
//! the same definition comes back; what it refers to (schema, columns) is exchanged and freed.
//!
//! Definitions are not trusted: the size of a schema, the memory of its regular expressions,
//! the work of a validation and the number of its errors are bounded.

mod attach;
mod check;
mod check_lists;
mod columns;
mod definition;
mod formats;
mod json_path;
mod kinds;
mod node;
mod open_api;
mod patterns;
mod prune;
mod resource;
mod rule_costs;
mod rules;
mod scale;
mod strategy;
mod trail;
mod validate;

pub use check::check_schema;
pub use definition::{Definition, version_order};
pub(crate) use formats::holds as format_holds;
pub use json_path::{JsonPath, JsonPathError};
pub use kinds::{CustomKinds, TooManyKinds};
pub use node::{Additional, CompileError, MAX_NODES, Node, ValueType};
pub use open_api::{type_name, without_alternatives};
pub use resource::{Converter, CustomResource};
pub use scale::ScalePaths;
