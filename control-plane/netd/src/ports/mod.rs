//! The host side of each pod's network: where its frames come in, and what it may say there.
//!
//! ```text
//!  runtime's CNI records ──► attachment ──► ruleset ──► table bridge hull ──► kernel
//!   (which veth, MAC, addresses, pod)        anti-spoofing, steering
//! ```
//! - **Anti-spoofing**: a pod's frames carry its own MAC and addresses, in Ethernet, IP, ARP and
//!   neighbour discovery, or they are dropped. Always on.
//! - **Steering**: unicast IP frames of pods go up to the node's IP stack instead of across the
//!   bridge. So traffic between pods of one node is routed like any other: services can translate
//!   it both ways, and network policy sees it, without the br_netfilter module.

pub mod attachment;
pub mod bridge;
pub mod ruleset;
pub mod watch;
