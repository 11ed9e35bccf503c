//! The node agent between a real API server, in process, and a container runtime in memory.
// Helpers of tests: a failed step is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod fake_cri;
mod housekeeping;
mod identity;
mod images;
mod killed_vm;
mod lifecycle;
mod pod_network;
mod server;
mod static_pods;
mod support;
