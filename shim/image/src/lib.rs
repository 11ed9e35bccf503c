//! hull-image: pulls container images from OCI registries and keeps each one as a single
//! read-only EROFS file.
//!
//! ```text
//!  reference ──► registry client ──► layers ──► merged tree ──► EROFS writer ──► store
//!  (reference)   (registry/)         (layer/)   (layer/tree)    (erofs/)         (store, index)
//!                manifests, blobs    digest and  whiteouts,      one file per     tags, digests,
//!                mirrors, auth       diff_id     hard links      image id         leases
//! ```
//!
//! A pull streams every layer through its two digests (compressed and uncompressed) into a spool
//! file, reads the tar headers into one in-memory tree whose files point back into the spools,
//! and writes that tree as one EROFS image.
//!
//! Invariants:
//! * Nothing of a layer is ever unpacked into a host directory, so no path in a layer can reach
//!   the host. Entries that try to climb out are still refused, since they mean a hostile image.
//! * No byte that fails its digest gets into a committed image.
//! * The index file is the truth. An EROFS file or a spool that it does not name is garbage from
//!   a crash and is removed by [`ImageStore::open`]; an image that it names is complete, since the
//!   EROFS file is synced and renamed before the index is.
//! * The same image pulled through two references is one file.

mod config;
mod erofs;
mod error;
mod image;
mod index;
mod layer;
mod pull;
mod reference;
mod registry;
mod store;

pub use config::{HostConfig, Limits, RegistryConfig, StoreConfig};
pub use error::{OpenError, PullCause, PullError, PullErrorKind, RemoveError};
pub use image::{FsUsage, Image, ImageConfig};
pub use reference::{ImageReference, ReferenceError};
pub use registry::RegistryAuth;
pub use store::ImageStore;
