//! What the end-to-end tests share: a one-machine cluster of their own
//! ([`cluster`]) and what its VMs boot ([`guest`]), stock kubectl ([`kubectl`]), waiting for a condition ([`wait`]),
//! looking for what a pod left behind ([`leaks`]), and a second machine ([`second`]).
//!
//! The scenarios are in `tests/cluster/`; they run where KVM is, one after the other,
//! against one cluster.

pub mod cluster;
pub mod guest;
pub mod kubectl;
pub mod leaks;
pub mod second;
pub mod wait;
