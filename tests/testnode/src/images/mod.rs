//! Sample OCI images, built from Debian packages and from nothing, in the storage of
//! Debian's docker-registry.
//!
//! ```text
//!  packages ──► tree ─┐
//!  (apt, dpkg -x)     ├─► layer (tar, gzip or zstd) ─┐
//!  samples, hostile ──┘                              ├─► image ──► registry storage
//!                          config (env, user, argv) ─┘  (manifest)  CACHE/registry
//! ```
//!
//! The same inputs give the same digests. The storage is written directly rather than
//! pushed: no server has to run, and a blob that does not match its digest, which
//! a server would refuse, can be made on purpose.

mod debian;
mod hostile;
mod image;
mod layer;
mod samples;
mod storage;

use std::path::PathBuf;

use crate::cache::{self, CacheError};
use crate::packages::PackageError;

pub use image::{Config, Image, Style};
pub use layer::{Compression, Layer, Owner, PackedLayer};
pub use storage::Storage;

/// Why the images could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A Debian package could not be had.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A layer could not be packed.
    #[error("packing a layer: {0}")]
    Pack(#[source] std::io::Error),
    /// A document could not be written as JSON.
    #[error("encoding: {0}")]
    Encode(#[from] serde_json::Error),
}

/// Everything that decides what the images hold, besides the versions of Debian's packages.
const RECIPE: [&[u8]; 6] = [
    include_bytes!("debian.rs"),
    include_bytes!("hostile.rs"),
    include_bytes!("image.rs"),
    include_bytes!("layer.rs"),
    include_bytes!("samples.rs"),
    include_bytes!("storage.rs"),
];

/// Builds every image into the registry's storage and returns its directory. Does
/// nothing if the same recipe has been followed before.
pub fn fill() -> Result<PathBuf, ImagesError> {
    let directory = cache::directory()?.join("registry");
    cache::create_directory(&directory)?;
    let _lock = cache::lock(&directory.join(".lock"))?;
    let recipe = cache::sha256_hex(&RECIPE.concat());
    let stamp = directory.join(".recipe");
    if std::fs::read_to_string(&stamp).is_ok_and(|done| done == recipe) {
        return Ok(directory);
    }
    tracing::info!(directory = %directory.display(), "building the sample images");
    let storage = Storage::new(&directory);
    let busybox = debian::busybox_layer()?;
    samples::write(&storage, &busybox)?;
    debian::write_nginx(&storage, &busybox)?;
    hostile::write(&storage, &busybox)?;
    cache::write_atomically(&stamp, recipe.as_bytes())?;
    Ok(directory)
}
