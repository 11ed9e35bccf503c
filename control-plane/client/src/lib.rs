//! What the API server's clients inside the control plane share.
//!
//! * [`events`]: a recorder of Kubernetes events that counts repetitions instead of writing
//!   them again, and never makes its caller wait.
//! * [`taints`]: which tolerations cover which taints; the scheduler and the eviction of pods
//!   from failed nodes must agree on it.

pub mod events;
pub mod taints;
