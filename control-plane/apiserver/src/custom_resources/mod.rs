//! Custom resources: the kinds of the moment, kept after the definitions in the watch cache.
//!
//! ```text
//!  CustomResourceDefinitions in the watch cache
//!        │ each change
//!        ▼
//!  naming: which names are free ──► status: NamesAccepted, Established
//!        │
//!        ▼
//!  served: Served { registry, discovery, OpenAPI }  ◄── every request takes the current one
//!        │
//!  cleanup: definitions that are being deleted lose their objects, then their finalizer
//! ```
//!
//! Kinds are served before their definition says so (`Established`): who waited for the
//! condition finds them. Every server on a store does all of this; the writes are conditional,
//! so the slower one has nothing left to do.
//!
//! Objects stay in the version they were written in until they are written again. `conversion`
//! brings them into the version that is asked for: by name, or through the definition's webhook,
//! whose answers `conversion_cache` keeps.

mod cleanup;
mod controller;
mod conversion;
mod conversion_cache;
mod naming;
mod served;

pub(crate) use controller::{run, serve};
pub(crate) use conversion_cache::Conversions;
pub(crate) use served::{Served, ServedKinds};
