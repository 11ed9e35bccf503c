//! nftables: what a table is to hold, kept in memory, and the smallest transaction that takes the
//! kernel's table there.
//!
//! ```text
//!  units (a service, a pod) ──Fragment──► Table ──pending──► transaction ──nft -f -──► kernel
//! ```
//!
//! Every token of a transaction is made from typed values (addresses, ports, digests): no text of
//! an API object ever gets into one.

mod exec;
mod table;

pub use exec::{Nft, NftError};
pub use table::{BaseChain, Family, Fragment, SetDeclaration, Table};
