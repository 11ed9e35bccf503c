//! The object model of Hull's Kubernetes API, without any IO.
//!
//! Objects are dynamic ([`serde_json::Value`]); what is known about them is data:
//!
//! ```text
//!  request bytes ─► decode ─► schema (types, unknown fields, pruning)
//!                                │
//!        patch (JSON, merge,     ▼
//!        strategic merge) ─► registry::Kind ─► Strategy: defaults, validation,
//!                                │             immutability, graceful deletion
//!                                ▼
//!              selector (labels, fields)   table (kubectl's columns)
//! ```
//!
//! * [`registry`] is the one table of served kinds. Discovery, routing, OpenAPI and
//!   storage keys are all read from it: there is no code per kind outside [`kinds`].
//! * [`schema`] is the table of known fields with their types and patch strategies.
//! * [`custom`] is what CustomResourceDefinitions bring: kinds that come and go at run time.
//! * [`cron`] reads the schedules of CronJobs and finds their next time.
//! * [`quota`] says what an object counts in a ResourceQuota.
//! * [`protobuf`] is the other form of the built-in kinds on the wire, driven by the schema.
//! * [`managed`] is about who owns which field, and server-side apply.
//! * [`status`] holds the errors, with Kubernetes' reasons, codes and messages.

pub mod amounts;
pub mod cel;
pub mod cron;
pub mod custom;
pub mod decode;
pub mod field;
#[cfg(any(test, feature = "hostile"))]
#[allow(clippy::unwrap_used, reason = "code of tests")]
pub mod hostile;
pub mod kinds;
pub mod managed;
pub mod meta;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod registry;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod time;

pub use object::ObjectExt;
pub use registry::{Kind, Registry};
pub use status::ApiError;
