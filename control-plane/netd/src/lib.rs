//! The service network of a node: Services, network policy and cluster DNS; the roles of
//! kube-proxy, a policy agent and CoreDNS.
//!
//! ```text
//!   API server ──watches──► daemon ─┬─ services/ ──► nft/ (inet hull) ──► kernel
//!                                   │      └──► conntrack (stale UDP flows), health check ports
//!                                   ├─ ports/ ──► nft/ (bridge hull) ──► kernel
//!                                   ├─ policy/ ──► nft/ (inet hull_policy) ──► kernel
//!                                   ├─ nodes/ ──► routes and tunnel to other nodes' pods
//!                                   ├─ dns/ ──► UDP and TCP port 53 of the cluster DNS address
//!                                   └─ service_link (dummy interface: DNS address, service route)
//! ```
//!
//! Invariants:
//! - The kernel's tables change by transactions that hold all of a change or nothing. They stay
//!   when this process ends: traffic goes on, and the next process replaces them at once.
//! - No name, label or annotation of an API object gets into a transaction.
//! - What the API server cannot tell yet is not guessed: tables are written after the first whole
//!   list, never from half of one.

pub mod config;
pub mod conntrack;
mod daemon;
pub mod dns;
pub mod metrics;
pub mod nft;
pub mod nodes;
pub mod policy;
pub mod ports;
mod server;
pub mod service_link;
pub mod services;
pub mod sync;
mod sysctl;
mod watch;

pub use config::NetdConfig;
pub use daemon::{NetdError, run};
pub use nodes::NodeLinks;
