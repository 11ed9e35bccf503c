//! The CRI services (`runtime.v1`): thin handlers, one file per group of RPCs, on the
//! domain code. An RPC that is not there yet answers UNIMPLEMENTED with its name.

pub mod convert;
pub mod events;
pub mod image;
pub mod pages;
pub mod rates;
pub mod runtime;
pub mod server;
