//! The scheduler: gives each pod a node.
//!
//! ```text
//!  watch pods, nodes ──► Core ──────────────────────────────┐  (one task owns it, no locks)
//!                        │ Queue: active, backoff,          │
//!                        │        unschedulable, gated      │
//!                        │ Cache: nodes with what their     │
//!                        │        pods request, assumed pods│
//!                        │ Framework: plugins               │
//!                        └─► Decision ──► binder (concurrent, bounded) ──► POST pods/NAME/binding
//!                                    └──► reporter ──► Event, PodScheduled=False
//! ```
//!
//! * [`core`] is pure: objects go in, decisions come out. It never lists: the [`cache`] is
//!   changed by each event.
//! * [`framework`] has the extension points; [`plugins`] has one file per plugin.
//! * A chosen node is *assumed* at once, so the next pod sees it taken; binding goes on beside
//!   the next decisions. A binding that fails gives the room back and the pod tries again.
//! * [`runtime`] does the IO.

pub mod budgets;
pub mod cache;
pub mod config;
pub mod constraints;
pub mod core;
pub mod framework;
pub mod metrics;
pub mod plugins;
pub mod pod;
mod preemptor;
pub mod queue;
pub mod resources;
pub mod runtime;
pub mod topology;
pub mod volumes;

pub use config::SchedulerConfig;
pub use metrics::SchedulerMetrics;
pub use runtime::{SchedulerError, run};
