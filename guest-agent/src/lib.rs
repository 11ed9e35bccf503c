//! hull-agent, the root process of a sandbox: it takes the host's requests
//! (`hull_agent_protocol`) and makes the sandbox's network, volumes and containers.
//!
//! ```text
//!            host (hull-shim)
//!      gRPC │              │ byte streams
//!   ┌───────▼──────┐ ┌─────▼─────┐
//!   │ server       │ │ streams   │
//!   └──┬───────┬───┘ └─────┬─────┘
//!      │       │           │
//!  sandbox   volume   container::containers ─► engine ─► helper process: libcontainer
//!  network             │ rootfs, spec, cgroup               │
//!                      │ process ◄── io ◄── pipes, pty ─── container's process
//!                      ▼               ▲
//!                    events          reaper (every child's end)
//! ```
//! It has two homes: PID 1 of a guest ([`pid1`]) and a process on a host ([`native`]).
//!
//! Whom it trusts: the host wholly, containers not at all. What a container can write
//! to is resolved by the kernel inside its own root ([`resolve`]); guest vsock ports
//! are served to the host only ([`listen`]).

pub mod agent;
pub mod container;
pub mod disk;
pub mod disk_usage;
pub mod engine;
pub mod error;
pub mod events;
pub mod interface_stats;
pub mod io;
pub mod layout;
pub mod listen;
pub mod mounts;
pub mod name;
pub mod native;
pub mod network;
pub mod pid1;
pub mod reaper;
pub mod resolve;
pub mod sandbox;
pub mod server;
pub mod shares;
pub mod streams;
pub mod volume;

/// Environment variable with the log filter; on a guest kernel's command line it
/// becomes PID 1's environment.
pub const LOG_VARIABLE: &str = "HULL_LOG";
