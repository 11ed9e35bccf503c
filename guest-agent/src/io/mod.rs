//! A process's standard streams inside the agent.
//!
//! ```text
//! process ──pipe or pty──► pump ──► Output (buffer, offsets) ──► one stream connection
//! process ◄──pipe or pty── Input ◄── one stream connection
//! ```
//! The buffers outlive the connections: whoever connects again asks for an offset.

pub mod fd;
pub mod input;
pub mod output;
