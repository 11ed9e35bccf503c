//! The Container Runtime Interface, `runtime.v1`, as of Kubernetes 1.36: messages,
//! clients and servers of both services, generated from `proto/api.proto`, which is
//! Kubernetes' own definition, unchanged.
//!
//! Messages can be stored as JSON (serde). Fields that a stored message lacks have their
//! default when it is read.

mod redacted;

/// What the definition's package contains.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}
