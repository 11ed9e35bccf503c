//! What the API server's clients inside the control plane share.
//!
//! * [`events`]: a recorder of Kubernetes events that counts repetitions instead of writing
//!   them again, and never makes its caller wait.
//! * [`leader`]: one of several instances works at a time.
//! * [`metrics`]: registering figures.
//! * [`node_affinity`]: which nodes a pod may go to by their labels.
//! * [`taints`]: which tolerations cover which taints; the scheduler and the eviction of pods
//!   from failed nodes must agree on it.
//! * [`timeouts`]: requests that end, and the factor for slow machines.
//! * [`trim`]: what is kept of a watched object.
//! * [`volumes`]: which PersistentVolume does for which claim.

pub mod events;
pub mod leader;
pub mod metrics;
pub mod node_affinity;
pub mod taints;
pub mod timeouts;
pub mod trim;
pub mod volumes;
