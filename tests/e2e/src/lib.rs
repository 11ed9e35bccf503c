//! What the end-to-end tests share: a one-machine cluster of their own
//! ([`cluster`]) and what its VMs boot ([`guest`]), stock kubectl ([`kubectl`]) and one that stays
//! (`proxy`), waiting for a condition ([`wait`]),
//! looking for what a pod left behind ([`leaks`]), a second machine ([`second`]), processes that are
//! killed or stand still ([`processes`]), what the runtime has noted of a pod ([`journal`]), a
//! registry that stops half-way ([`relay`]), and kubectl on a terminal ([`terminal`]).
//!
//! The scenarios are in `tests/cluster/`; they run where KVM is, one after the other,
//! against one cluster.

pub mod cluster;
pub mod guest;
pub mod journal;
pub mod kubectl;
pub mod leaks;
pub mod processes;
mod proxy;
pub mod relay;
pub mod second;
pub mod terminal;
pub mod wait;
