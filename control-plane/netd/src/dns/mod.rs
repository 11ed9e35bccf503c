//! Cluster DNS: what CoreDNS does, on every node.
//!
//! ```text
//!  query ─► server ─► zone: is it a name of the cluster? ── yes ─► answer
//!                            │ no
//!                            └─► cache ─► forward: stub domain or upstream ─► answer
//! ```
//! Names follow the Kubernetes DNS specification 1.1.0. The zone is kept by the same watches as
//! the services' table and answers from memory.

pub mod cache;
pub mod forward;
pub mod metrics;
pub mod reply;
pub mod server;
pub mod service;
pub mod wire;
pub mod zone;
