//! hull-shim.
fn main() {}
