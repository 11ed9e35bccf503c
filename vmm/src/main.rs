//! hull-vmm.
fn main() {}
