//! What was added for which container: DEL and CHECK must see the configuration and
//! the result of their ADD, even when the shim was killed and the files in
//! /etc/cni/net.d changed in between.
//!
//! The entry is written before ADD runs, without a result, and again after it: so a
//! crash at any moment leaves an entry behind whenever a plugin may have acted.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io;
use std::path::{Path, PathBuf};

/// One attachment of one container to one network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheEntry {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_NETNS.
    pub netns: PathBuf,
    /// CNI_ARGS.
    pub args: String,
    /// `name`.
    pub network: String,
    /// `cniVersion`.
    pub version: String,
    /// `disableCheck`.
    pub disable_check: bool,
    /// The plugins' configurations.
    pub plugins: Vec<Map<String, Value>>,
    /// Capability arguments (`runtimeConfig`).
    pub capabilities: Map<String, Value>,
    /// Result of ADD; `None` while it runs.
    pub result: Option<Value>,
}

/// A directory of entries, one file per container.
#[derive(Debug, Clone)]
pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Entries live in `directory`, which is made when needed.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    fn path(&self, container_id: &str) -> PathBuf {
        self.directory.join(format!("{container_id}.json"))
    }

    /// Writes an entry, durably.
    pub fn store(&self, entry: &CacheEntry) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        crate::journal::write_atomically(
            &self.path(&entry.container_id),
            &serde_json::to_vec_pretty(entry)?,
        )
    }

    /// The container's entry, if there is one.
    pub fn load(&self, container_id: &str) -> io::Result<Option<CacheEntry>> {
        match std::fs::read(self.path(container_id)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets the container. One that is not there is no error.
    pub fn remove(&self, container_id: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(container_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Containers that have an entry.
    pub fn container_ids(&self) -> io::Result<Vec<String>> {
        list_stems(&self.directory)
    }
}

fn list_stems(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut stems = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            stems.extend(
                path.file_stem()
                    .and_then(|stem| stem.to_str())
                    .map(str::to_string),
            );
        }
    }
    Ok(stems)
}
