//! Containers: an image on a disk slot, volumes, an OCI configuration, a process.
//!
//! * [`state`]: the states and their transitions
//! * [`object`]: one container in memory
//! * [`create`]: CreateContainer: image, slot, volumes, configuration
//! * [`disks`]: which image is on which slot
//! * [`spec`], [`user`], [`capabilities`], [`seccomp`]: the OCI runtime configuration
//! * [`mounts`], [`volumes`]: CRI mounts, and those that need no shared filesystem
//! * [`shares`]: directories and files of the host
//! * [`lifecycle`]: start, stop, exit, remove
//! * [`update`]: other limits
//! * [`exec`]: a second process
//! * [`signal`]: which signal stops it
//!
//! The agent makes the container when CRI starts it, as other runtimes do: what is
//! wrong with a command is an error of its start, and the container then counts as
//! exited with that reason.

pub mod capabilities;
pub mod create;
pub mod disks;
pub mod exec;
pub mod lifecycle;
pub mod mounts;
pub mod object;
pub mod seccomp;
pub mod shares;
pub mod signal;
pub mod spec;
pub mod state;
pub mod update;
pub mod user;
pub mod volumes;
