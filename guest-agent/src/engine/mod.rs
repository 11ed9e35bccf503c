//! The container engine: libcontainer, run in helper processes.
//!
//! libcontainer clones its caller's thread and works on in the clone, which is not
//! safe in a process with many threads (the agent under tokio). So each operation is
//! a fresh, single-threaded process of the agent's own binary, `hull-agent engine`:
//!
//! ```text
//! agent ──fork, exec──► engine helper (create | start | exec)
//!   ▲                     │ libcontainer: clone with CLONE_PARENT
//!   │ child of the agent  ▼
//!   └──────────────── container process: its stdin, stdout, stderr are the helper's
//! ```
//! Two descriptors go with it: the *reply* socket, on which the helper answers with
//! one JSON [`message::Reply`] (and the pseudo-terminal's master), and the *report*
//! pipe, which the container's process holds until it has executed its command: end
//! of file means that it did, a [`message::ExecFailure`] says why it could not.

pub mod child;
mod console;
mod executor;
pub mod message;
mod parent;

pub use parent::{Engine, EngineError, Launched, Report, Stdio};
