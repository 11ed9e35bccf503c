//! Boot: an ELF kernel through its PVH entry point, with an initramfs and a command line.
//!
//! The kernel and the initramfs are read with positioned reads, so that several VMMs may
//! share one open file. What the guest finds is described in [`crate::layout`].

mod pvh;
mod source;

pub use pvh::{BootError, Entry, load};
