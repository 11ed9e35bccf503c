//! hull-shim: the CRI server of a node. It turns pods into microVMs.
//!
//! ```text
//!  node agent ── gRPC ──► cri ──► sandbox ──► network (cni), vmm, guest
//!                          │         │
//!                          │         └──► container ──► logs
//!                          ├──► hull-image (pull, EROFS)
//!  kubectl exec ── ws ──► streaming          journal: every record, on disk first
//! ```
//!
//! * [`cri`]: the RPCs, thin
//! * [`sandbox`], [`container`]: the domain: state machines, start, stop, recovery
//! * [`network`], [`cni`]: netns, CNI plugins, tap
//! * [`vmm`]: the hull-vmm process, its files and disks
//! * [`guest`]: the agent in the VM
//! * [`logs`]: CRI log files
//! * [`streaming`]: exec, attach and port-forward over WebSocket
//! * [`journal`]: crash-safe records
//! * [`shim`]: all of these put together
//!
//! The shim is crash-only: it may be killed at any moment, and the next one adopts the
//! pods ([`sandbox::recover`]).

pub mod cni;
pub mod config;
pub mod container;
pub mod cri;
pub mod error;
pub mod guest;
pub mod ids;
pub mod journal;
pub mod logs;
pub mod metrics;
pub mod network;
pub mod sandbox;
pub mod shim;
pub mod streaming;
pub mod vmm;

pub use hull_timeouts as timeouts;
