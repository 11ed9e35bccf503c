//! The controllers: what turns deployments into pods, and cleans up behind everybody.
//!
//! Each controller is one folder or file; all are built the same way from [`runtime`] and
//! started by [`run`]. They talk to nothing but the API server.

pub mod adopt;
pub mod autoscaler;
pub mod certificates;
pub mod cluster_role_aggregation;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod garbage;
mod history;
mod informers;
mod int_or_percent;
#[cfg(test)]
mod invariants;
pub mod job;
pub mod load_balancer;
mod manager;
pub mod namespace;
pub mod node_lifecycle;
pub mod owner;
pub mod per_namespace;
pub mod pod_control;
pub mod pod_gc;
pub mod pods;
pub mod replicaset;
pub mod resource_quota;
pub mod root_ca;
pub mod runtime;
pub mod service_account;
pub mod statefulset;
pub mod taint_eviction;
pub mod ttl_after_finished;
pub mod volumes;

pub use manager::{ControllersConfig, ControllersError, run};
pub use runtime::metrics::ControllersMetrics;
