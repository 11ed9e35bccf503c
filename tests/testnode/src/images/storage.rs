//! The filesystem storage of docker-registry 2 (distribution, `registry/storage/paths.go`):
//!
//! ```text
//! docker/registry/v2/blobs/sha256/ab/abcd…/data
//! docker/registry/v2/repositories/NAME/_layers/sha256/abcd…/link
//! docker/registry/v2/repositories/NAME/_manifests/revisions/sha256/abcd…/link
//! docker/registry/v2/repositories/NAME/_manifests/tags/TAG/current/link
//! docker/registry/v2/repositories/NAME/_manifests/tags/TAG/index/sha256/abcd…/link
//! ```
//! A link holds a digest. Blobs are written before what points at them, each file in
//! one piece, so a registry may serve the directory all the while.

use std::path::{Path, PathBuf};

use super::ImagesError;
use super::image::Image;
use super::layer::digest;
use crate::cache;

/// A storage directory.
#[derive(Debug)]
pub struct Storage {
    root: PathBuf,
}

impl Storage {
    /// The storage in a directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            root: directory.join("docker/registry/v2"),
        }
    }

    /// Stores an image under a repository and a tag.
    pub fn put(&self, repository: &str, tag: &str, image: &Image) -> Result<(), ImagesError> {
        for layer in &image.layers {
            self.put_blob(repository, &layer.digest, &layer.bytes)?;
        }
        self.put_blob(repository, &digest(&image.config), &image.config)?;
        self.put_manifest(repository, &image.manifest)?;
        self.put_tag(repository, tag, &image.digest())
    }

    /// Stores an index under a tag; what it offers must be stored before.
    pub fn put_index(&self, repository: &str, tag: &str, index: &[u8]) -> Result<(), ImagesError> {
        self.put_manifest(repository, index)?;
        self.put_tag(repository, tag, &digest(index))
    }

    /// Stores bytes under a digest, which may be wrong.
    pub fn put_blob(&self, repository: &str, name: &str, bytes: &[u8]) -> Result<(), ImagesError> {
        let hash = hash_of(name);
        let short = hash.get(..2).unwrap_or(hash);
        let data = self
            .root
            .join("blobs/sha256")
            .join(short)
            .join(hash)
            .join("data");
        if std::fs::read(&data).is_ok_and(|present| present == bytes) {
            return self.link(repository, &format!("_layers/sha256/{hash}/link"), name);
        }
        cache::write_atomically(&data, bytes)?;
        self.link(repository, &format!("_layers/sha256/{hash}/link"), name)
    }

    fn put_manifest(&self, repository: &str, manifest: &[u8]) -> Result<(), ImagesError> {
        let name = digest(manifest);
        self.put_blob(repository, &name, manifest)?;
        let path = format!("_manifests/revisions/sha256/{}/link", hash_of(&name));
        self.link(repository, &path, &name)
    }

    fn put_tag(&self, repository: &str, tag: &str, name: &str) -> Result<(), ImagesError> {
        let hash = hash_of(name);
        self.link(
            repository,
            &format!("_manifests/tags/{tag}/index/sha256/{hash}/link"),
            name,
        )?;
        self.link(
            repository,
            &format!("_manifests/tags/{tag}/current/link"),
            name,
        )
    }

    fn link(&self, repository: &str, path: &str, name: &str) -> Result<(), ImagesError> {
        let path = self.root.join("repositories").join(repository).join(path);
        Ok(cache::write_atomically(&path, name.as_bytes())?)
    }
}

fn hash_of(name: &str) -> &str {
    name.trim_start_matches("sha256:")
}
