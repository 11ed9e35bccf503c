//! Who serves a Service: EndpointSlices and Endpoints.
//!
//! ```text
//! Service, its pods, their nodes ─► candidates ─► slices ─► plan ─► EndpointSlice (100 each)
//!                                              └► legacy ────────► Endpoints (1000 at most)
//! Endpoints that somebody wrote by hand ─► mirror ─► plan ───────► EndpointSlice
//! ```
//!
//! [`plan`] is pure: it changes as few slices as it can, because every change goes to every node.

pub(crate) mod candidates;
mod legacy;
mod mirror;
mod plan;
mod slices;
#[cfg(test)]
mod tests;
mod watch;

pub use legacy::EndpointsController;
pub use mirror::EndpointSliceMirroringController;
pub use slices::EndpointSliceController;
