//! The protocol between the host and hull-agent: the gRPC service of
//! `proto/agent.proto`, the boot-phase lines that the agent sends while it starts
//! ([`boot`]), the one-line header that opens a byte stream ([`stream`]), and how
//! the host reaches an agent ([`client`]).

pub mod boot;
pub mod client;
pub mod stream;

/// Messages, client and server generated from `proto/agent.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("hull.agent.v1");
}

/// Protocol major version: peers with different ones do not talk to each other.
pub const VERSION_MAJOR: u32 = 1;
/// Protocol minor version: grows when something is added that an older peer may ignore.
pub const VERSION_MINOR: u32 = 1;

/// vsock port on the host (CID 2) that the agent dials while it boots.
pub const BOOT_PORT: u32 = 1023;
/// vsock port in the guest on which the agent serves gRPC.
pub const CONTROL_PORT: u32 = 1024;
/// vsock port in the guest on which the agent accepts byte streams.
pub const STREAM_PORT: u32 = 1025;

/// Unix socket of the gRPC service in the directory of an agent that runs on the host.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Unix socket of the byte streams in the directory of an agent that runs on the host.
pub const STREAM_SOCKET: &str = "stream.sock";

/// Largest gRPC message in bytes, either way: a volume's files travel in one.
pub const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;
/// Longest container id, exec id or volume name in bytes.
pub const MAX_NAME: usize = 128;
