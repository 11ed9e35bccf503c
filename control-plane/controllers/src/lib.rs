//! The controllers: what turns deployments into pods, and cleans up behind everybody.
//!
//! Each controller is one folder or file; all are built the same way from [`runtime`] and
//! started by [`run`]. They talk to nothing but the API server.

pub mod adopt;
pub mod deployment;
pub mod garbage;
mod manager;
pub mod namespace;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod pods;
pub mod replicaset;
pub mod root_ca;
pub mod runtime;
pub mod service_account;
pub mod taint_eviction;

pub use manager::{ControllersConfig, ControllersError, run};
pub use runtime::metrics::ControllersMetrics;
