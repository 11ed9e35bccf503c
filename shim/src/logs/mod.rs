//! Container output: from the agent's streams into CRI log files, and to attached
//! clients.
//!
//! ```text
//! agent stdout ──┐             ┌──► log file   2026-11-22T05:00:00.123456789Z stdout F line
//!                ├─► pump ─────┤
//! agent stderr ──┘             └──► attached clients (raw bytes)
//! ```
//!
//! The log file itself says how much of the output it holds, since its lines keep every
//! byte: [`resume`] counts them from the last checkpoint on. So a shim that was killed
//! goes on at the right byte, with nothing lost or doubled, as long as the agent still
//! has it (it keeps what was not read, and the last 256 KiB of what was).

mod pump;
pub mod resume;
pub mod writer;

pub use pump::{LogPump, OutputChunk};
