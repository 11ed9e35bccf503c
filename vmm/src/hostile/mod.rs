//! A hostile driver: bytes become what a guest may do to a device, in any order.
//!
//! ```text
//! bytes ── script: rings, buffers, indices, registers, doorbells ──► device ──► checks
//! ```
//! The fuzz targets in `vmm/fuzz` and the tests here play the same bytes. A target ends
//! with a check of what the guest must not have been able to do.

mod script;
mod targets;
#[cfg(test)]
mod tests;

pub use targets::{TARGETS, Target};

/// Plays the bytes against the target of that name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap().run)(data);
}
