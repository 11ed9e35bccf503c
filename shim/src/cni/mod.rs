//! A CNI runtime: reads network configurations, executes chained plugins with
//! ADD, CHECK and DEL, and keeps the results that CHECK and DEL need.
//! <https://www.cni.dev/docs/spec/>, versions 0.3.1 to 1.0.0.
//!
//! * [`config`]: the files of `/etc/cni/net.d`
//! * [`exec`]: one execution of one plugin: environment, stdin, stdout, time-out
//! * [`types`]: results and errors as plugins print them
//! * [`cache`]: what was added, by container, on disk
//! * [`runtime`]: chains of plugins

pub mod cache;
pub mod config;
pub mod exec;
pub mod runtime;
pub mod types;

pub use runtime::{Attachment, CniError, CniRuntime, PortMapping};
