//! Who owns which field: `metadata.managedFields`, and server-side apply, which is built on it
//! (Kubernetes: structured-merge-diff v6, `FieldsV1`).
//!
//! ```text
//!   types    how a value merges: leaf, struct, map, set, list by keys (built-in or custom)
//!     │
//!   walk     value ─► the set of its fields; two values ─► fields added, modified, removed
//!   merge    live + applied ─► merged; and the removal of fields nobody applies any more
//!     │
//!   set      a set of field paths, kept in the form it is stored in (`{"f:spec":{...}}`)
//!   entries  managedFields ─► managers with their sets, and back
//!     │
//!   engine   update (any write) and apply: what becomes of the object and of the owners
//! ```
//!
//! Invariants, held by the property tests in `engine_tests`:
//! * applying the same configuration twice changes nothing the second time;
//! * an update never takes a field from a manager whose field did not change;
//! * without `force` an apply never changes a field that somebody else owns.

mod engine;
#[cfg(test)]
mod engine_tests;
mod entries;
mod merge;
mod set;
mod types;
mod walk;

pub use engine::{Apply, ApplyError, Conflict, Reset, Write, apply, update};
pub use entries::{MAX_MANAGER_BYTES, Operation};
pub use set::FieldSet;
pub use types::TypeRef;
