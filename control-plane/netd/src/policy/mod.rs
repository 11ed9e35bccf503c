//! NetworkPolicy, enforced on the node where a pod runs, outside of the pod.
//!
//! ```text
//!  NetworkPolicy, Pod, Namespace ─► index ─► rules (per local pod) ─► table inet hull_policy
//!  attachments ────────────────────┘
//! ```
//! Packets are judged one by one in the direction in which their connection began, so a changed
//! policy holds for connections that exist; what comes back is let through by connection tracking.
//! The pod's addresses can be relied on: the ports' table lets it use no others.

pub mod index;
pub mod model;
pub mod rules;
