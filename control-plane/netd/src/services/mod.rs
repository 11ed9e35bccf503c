//! Services: what kube-proxy does.
//!
//! ```text
//!  Service, EndpointSlice ──► index ──► model (ServicePort) ──► endpoints (who may be chosen)
//!                                                                   │
//!                        health check servers ◄── health            ▼
//!                        stale UDP flows      ◄── stale       ruleset ──► nft::Fragment
//! ```
//! Everything here is a pure function of the objects; the kernel is met in `nft` and `conntrack`.

pub mod endpoints;
pub mod health;
pub mod index;
pub mod model;
pub mod ruleset;
pub mod stale;
