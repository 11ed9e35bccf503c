//! The container runtime as the node agent sees it: a CRI v1 client over a unix socket.
//!
//! ```text
//!  pod workers ──► Cri (client.rs) ──gRPC, unix socket──► hull-shim or any CRI runtime
//!                   │
//!                   ├─ listing.rs, image_client.rs, stats_client.rs
//!                   ├─ observed.rs   what CRI reports, reduced to what decisions need
//!                   ├─ sandbox.rs    Pod -> PodSandboxConfig
//!                   ├─ container.rs  Container -> ContainerConfig
//!                   └─ labels.rs     the io.kubernetes.* names that tie CRI objects to pods
//! ```
//!
//! The channel connects lazily and reconnects by itself: a runtime that is down makes calls fail,
//! never the agent.

mod client;
pub mod container;
mod image_client;
pub mod labels;
mod listing;
pub mod observed;
pub mod sandbox;
mod stats_client;

pub use client::{Cri, CriError};
pub use observed::{ContainerPhase, ObservedContainer, ObservedPod, ObservedSandbox};
