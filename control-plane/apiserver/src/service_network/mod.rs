//! The cluster addresses and node ports of services.
//!
//! ```text
//!  create, update ─► allocate: free addresses and ports into the object
//!                        │
//!        Storage ─► claims: one key per address and port, written with the service itself
//! ```
//!
//! An address is claimed by its IPAddress object (as in Kubernetes), a node port by a key of
//! our own. They are written and removed in the service's own transaction, under the condition
//! that nobody holds them: no address is given twice, whatever crashes and however many
//! servers share the store.

mod allocate;
pub(crate) mod claims;
mod kubernetes;
mod range;

pub(crate) use allocate::allocate;
pub(crate) use kubernetes::publish;
pub use range::{Ipv4Range, RangeError, ServiceNetwork};
