//! The image store against a real registry, and against one that misbehaves. Needs root (mounts)
//! and Debian's docker-registry.

// clippy.toml allows these in test functions; the helpers here are called by nothing else.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod keeping;
mod pulls;
mod registries;
