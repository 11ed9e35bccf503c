//! The protocol between the host and hull-agent: the gRPC service of
//! `proto/agent.proto`, the boot-phase lines that the agent sends while it starts
//! ([`boot`]), and the one-line header that opens a byte stream ([`stream`]).

pub mod boot;
pub mod stream;

/// Messages, client and server generated from `proto/agent.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("hull.agent.v1");
}

/// Protocol major version: peers with different ones do not talk to each other.
pub const VERSION_MAJOR: u32 = 1;
/// Protocol minor version: grows when something is added that an older peer may ignore.
pub const VERSION_MINOR: u32 = 0;

/// vsock port on the host (CID 2) that the agent dials while it boots.
pub const BOOT_PORT: u32 = 1023;
/// vsock port in the guest on which the agent serves gRPC.
pub const CONTROL_PORT: u32 = 1024;
/// vsock port in the guest on which the agent accepts byte streams.
pub const STREAM_PORT: u32 = 1025;
