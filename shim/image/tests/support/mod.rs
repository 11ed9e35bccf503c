//! What the tests of the store share: a real registry, images to push, a registry that misbehaves.

pub mod facts;
pub mod fake;
pub mod image;
pub mod registry;

use std::path::Path;

use hull_image::{HostConfig, ImageStore, StoreConfig};

/// A store in `root` for which `docker.io` is only the registry at `endpoint`.
pub fn store(root: &Path, endpoint: &str) -> ImageStore {
    ImageStore::open(config(root, endpoint)).unwrap()
}

pub fn config(root: &Path, endpoint: &str) -> StoreConfig {
    let mut config = StoreConfig::new(root);
    let host = HostConfig {
        endpoints: vec![endpoint.to_owned()],
        fall_back: false,
        forward_credentials: true,
        ..HostConfig::default()
    };
    config.registries.hosts.insert("docker.io".to_owned(), host);
    config
}

/// Asserts that a failed pull left nothing in the store.
pub fn assert_empty(store: &ImageStore) {
    assert!(store.list().is_empty());
    for directory in ["erofs", "spool"] {
        let entries = std::fs::read_dir(store.root().join(directory)).unwrap();
        let left: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
