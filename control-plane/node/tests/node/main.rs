//! The node agent between a real API server, in process, and a container runtime in memory.
// Helpers of tests: a failed step is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod fake_cri;
mod identity;
mod server;
mod support;
