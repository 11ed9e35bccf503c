//! The jail: what the VMM gives up before it reads anything that a guest wrote.
//!
//! [`privileges::enter`] runs once, before any thread is started: own mount, IPC, network
//! and UTS namespaces, the vsock directory as an otherwise empty root, another user, no
//! capabilities, no new privileges. Then every thread puts itself under its own allow-list
//! of system calls ([`seccomp`]); a call that is not on it kills the process with SIGSYS.

pub mod privileges;
pub mod seccomp;
