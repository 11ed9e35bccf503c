//! hull-testnode.
fn main() {}
