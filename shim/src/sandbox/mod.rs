//! Sandboxes: a network namespace, a VM in it, an agent in that.
//!
//! ```text
//! run ──► netns ──► CNI + tap ──► VMM ──► kernel ──► agent      (run, boot)
//!  │ any failure                                                 
//!  └──► teardown: process, CNI DEL, netns, cgroup, files         (teardown)
//! watch: VMM exits and container exits become state              (watch)
//! recover: after a restart, adopt, finish or roll back           (recover)
//! check: whether CNI's work is still there                       (check)
//! ```
//!
//! * [`state`]: the states and their transitions
//! * [`registry`]: every sandbox and container, reserved names, ids by prefix
//! * [`object`]: one sandbox: its record, and its VM while it lives
//!
//! Invariants: the record on disk is written before a thing is made and removed after
//! it is gone; teardown finds things by the sandbox's id, not by what memory says.

pub mod boot;
pub mod check;
pub mod object;
pub mod recover;
pub mod registry;
pub mod run;
pub mod state;
pub mod stop;
pub mod teardown;
pub mod validate;
pub mod watch;
