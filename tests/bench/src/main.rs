//! hull-bench.
fn main() {}
