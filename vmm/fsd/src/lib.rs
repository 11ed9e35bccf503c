//! hull-fsd: the back end of virtio-fs for one pod.
//!
//! ```text
//! guest ── FUSE in virtqueues ──► device (a thread per queue) ──► fuse_backend_rs::Server
//!                                                                   │ FileSystem
//! shim ── control socket, share as a descriptor ──► control ──► ShareFs ──► openat2(share, one name)
//! ```
//! * [`jail`], [`seccomp`]: what the process gives up before it serves
//! * [`control`]: shares come and go
//! * [`device`]: the queues, in order, one thread each
//! * [`filesystem`]: what FUSE asks, done below the shares
//! * [`node`], [`handle`], [`share`]: what the guest knows, has open, and may see
//!
//! Invariants:
//! - Nothing is opened by a path of more than one component, and no symbolic link is ever
//!   followed: the guest resolves paths, one name at a time.
//! - A share is a detached mount. Nothing is above its root, it is read-only in the host's
//!   kernel if it is to be, and device nodes in it cannot be opened.
//! - Requests of a queue are answered in their order, so that a front end whose back end dies
//!   knows which are left.

pub mod config;
pub mod control;
pub mod device;
pub mod filesystem;
pub mod handle;
pub mod jail;
pub mod metrics;
pub mod node;
pub mod seccomp;
pub mod share;
mod system;
