//! What every controller is made of.
//!
//! ```text
//! watch ─► Informer (index per kind) ── handlers: key ─► WorkQueue ─► workers: Controller::reconcile
//!                ▲ reads                                    ▲ failed: again after its back-off
//!                └──────────── reconcile ── Writer ─────────┘        ─► API server
//! ```
//!
//! * An [`informer::Informer`] holds one kind, fed by one watch, and calls handlers on changes.
//!   Tests feed it with objects.
//! * A [`queue::WorkQueue`] never gives one key to two workers and slows failing keys down.
//! * [`expectations::Expectations`] keep a controller from acting twice on what its own writes
//!   have not yet shown in the informer.
//! * [`writer::Writer`] is the way to the API server; tests have one that records.

pub mod controller;
pub mod expectations;
#[cfg(test)]
pub(crate) mod fake;
pub mod informer;
pub mod key;
pub mod metrics;
pub mod queue;
pub mod writer;
pub mod written;

pub use controller::{Action, Controller, ReconcileError};
pub use expectations::Expectations;
pub use informer::{Delta, Informer};
pub use key::Key;
pub use queue::WorkQueue;
pub use writer::{Target, WriteError, Writer};
pub use written::Written;
