//! The streaming server: exec, attach and port-forward over WebSocket.
//!
//! CRI answers Exec with a URL that holds a token ([`tokens`]): good for one
//! connection and for one minute. The server speaks the Kubernetes subprotocols
//! `v4.channel.k8s.io` and `v5.channel.k8s.io` ([`protocol`]); SPDY is answered with an
//! error that says so.

mod attach;
mod exec;
mod portforward;
mod protocol;
pub mod server;
mod session;
pub mod tokens;
