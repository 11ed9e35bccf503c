//! virtio-vsock (virtio 1.2 §5.10), stream sockets, with unix sockets on the host side.
//!
//! ```text
//! host program ── connect, "CONNECT <port>\n" ──► listener ─► Connection ─► guest port
//! guest ── connect(CID 2, port) ──► Connection ─► unix socket "<prefix>_<port>" in the root
//! ```
//! A [`connection`] keeps the credit of both directions. What waits to be told to the guest
//! is a list of connections served in turn, one packet each, so that a busy connection does
//! not starve the others. Host sockets are watched edge-triggered: a connection without
//! credit or buffers costs nothing until that changes.

pub mod connection;
mod device;
mod listener;
mod metrics;
mod muxer;
pub mod packet;

pub use device::Vsock;
pub use metrics::VsockMetrics;
pub use muxer::{MAX_CONNECTIONS, Muxer};
