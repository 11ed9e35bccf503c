//! hull-vmm.
