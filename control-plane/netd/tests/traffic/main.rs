//! Real traffic through real tables, in network namespaces of the tests' own. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dns;
mod nodes;
mod policies;
mod services;
mod spoofing;
mod world;
