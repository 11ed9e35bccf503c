//! One pod on this node: a worker per pod, around pure decisions.
//!
//! ```text
//!   API server ──watch──► manager ──► worker (worker.rs)
//!                                       │ observe: what CRI reports        cri::ObservedPod
//!                                       │ plan.rs: (pod, observed, memory, now) -> steps, waits
//!                                       │ start.rs / terminate.rs: carry the steps out
//!                                       │ status.rs: (pod, observed, plan, health) -> PodStatus
//!                                       ▼
//!                              status_writer.rs ──PATCH──► API server
//! ```
//! Invariants:
//! - What runs is what CRI reports: the worker keeps nothing that a restart of the agent may not
//!   lose (back-off delays, the cause of the last failed start).
//! - A running container is never touched because the agent, the API server or the runtime
//!   restarted.
//! - A finished pod (Succeeded, Failed) never starts anything again.

pub mod backoff;
pub mod conditions;
pub mod containers;
pub mod health;
pub mod hosts_file;
pub mod identity;
pub mod memory;
pub mod phase;
pub mod plan;
pub mod qos;
pub mod recover;
pub mod restart;
pub(crate) mod start;
pub mod status;
pub(crate) mod status_writer;
pub(crate) mod terminate;
pub(crate) mod worker;
