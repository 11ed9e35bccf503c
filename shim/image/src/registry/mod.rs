//! A client of the OCI distribution specification, for pulls.
//!
//! It is written here on reqwest, and does not use oci-client, for what a node needs and that
//! client lacks: several endpoints for one registry (mirrors) each with its own scheme and
//! certificate authority, answers bounded in size before they are read, credentials that belong
//! to one pull (a client that remembers them would let one tenant pull with another's), and
//! downloads that go on where they broke off.
//!
//! ```text
//! Registries ── endpoints of a registry, one HTTP client per trust setting   (endpoint)
//!   └─ Session ── one pull at one endpoint: its credentials and token        (session, auth)
//!        └─ download ── a blob's bytes, gone on with after a break             (blob)
//!             └─ fetch_layer ── decompressed and verified while it arrives     (layer)
//! ```

mod auth;
mod blob;
mod endpoint;
mod layer;
mod manifest;
mod session;

pub use auth::RegistryAuth;
pub(crate) use blob::BlobRequest;
pub(crate) use endpoint::Registries;
pub(crate) use layer::fetch_layer;
pub(crate) use manifest::{Manifest, check_platform, choose_platform, parse_manifest};
#[cfg(test)]
pub(crate) use session::sha256_digest;
pub(crate) use session::{Session, format_digest};
