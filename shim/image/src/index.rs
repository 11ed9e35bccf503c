//! The index of images: which images the store has, under which names. One JSON file, replaced
//! atomically, so that a tag never names two images and a crash leaves the old or the new state.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::image::ImageConfig;

/// Version of the index's format. Another one is refused rather than guessed at.
const INDEX_VERSION: u32 = 1;

/// One image as the index keeps it. Its id is the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub repo_tags: BTreeSet<String>,
    pub repo_digests: BTreeSet<String>,
    /// Tags and digest references that the image was pulled by and that were not removed since.
    pub references: BTreeSet<String>,
    pub size_bytes: u64,
    pub config: ImageConfig,
    pub passwd: Option<String>,
    pub group: Option<String>,
}

/// All images by id (`sha256:…`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    pub images: BTreeMap<String, Record>,
}

impl Index {
    /// Reads the index; an absent file is an empty index.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(LoadError::Io(e)),
        };
        let index: Self = serde_json::from_slice(&text).map_err(LoadError::Json)?;
        if index.version != INDEX_VERSION {
            let reason = format!("format version {} is not known", index.version);
            return Err(LoadError::Json(serde::de::Error::custom(reason)));
        }
        Ok(index)
    }

    /// Writes the index so that after a crash either the old or the new one is there.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&Self {
            version: INDEX_VERSION,
            images: self.images.clone(),
        })?;
        let temporary = path.with_extension("json.new");
        let mut file = File::create(&temporary)?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        if let Err(e) = written.and_then(|()| fs::rename(&temporary, path)) {
            // Left behind it would be overwritten by the next save; on a full disk its bytes count.
            let _ = fs::remove_file(&temporary);
            return Err(e);
        }
        sync_directory(path)
    }

    /// Finds an image by id, with or without `sha256:`, or by an exact normalised reference.
    pub fn resolve(&self, reference_or_id: &str) -> Option<&str> {
        let as_id = match reference_or_id.strip_prefix("sha256:") {
            Some(_) => reference_or_id.to_owned(),
            None => format!("sha256:{reference_or_id}"),
        };
        if let Some((id, _)) = self.images.get_key_value(&as_id) {
            return Some(id);
        }
        self.images
            .iter()
            .find(|(_, record)| {
                record.repo_tags.contains(reference_or_id)
                    || record.repo_digests.contains(reference_or_id)
                    || record.references.contains(reference_or_id)
            })
            .map(|(id, _)| id.as_str())
    }

    /// Finds the one image whose id begins with these at least `MIN_ID_PREFIX` hex digits.
    pub fn resolve_prefix(&self, prefix: &str) -> Option<&str> {
        /// Shorter ones are likelier to be image names.
        const MIN_ID_PREFIX: usize = 12;
        let digits = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if digits.len() < MIN_ID_PREFIX || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut found = self.images.keys().filter(|id| {
            id.strip_prefix("sha256:")
                .is_some_and(|hex| hex.starts_with(digits))
        });
        match (found.next(), found.next()) {
            (Some(id), None) => Some(id),
            _ => None,
        }
    }

    /// Lets `reference` name the image `id`, and no other image any longer.
    pub fn name(&mut self, id: &str, reference: &str, is_tag: bool, repo_digest: &str) {
        for record in self.images.values_mut() {
            if is_tag {
                record.repo_tags.remove(reference);
                record.references.remove(reference);
            }
        }
        if let Some(record) = self.images.get_mut(id) {
            if is_tag {
                record.repo_tags.insert(reference.to_owned());
            }
            record.references.insert(reference.to_owned());
            record.repo_digests.insert(repo_digest.to_owned());
        }
    }

    /// Takes a name away from image `id`; the image itself goes with its last name. Returns
    /// whether the image is gone.
    pub fn unname(&mut self, id: &str, reference: &str) -> bool {
        let Some(record) = self.images.get_mut(id) else {
            return true;
        };
        record.repo_tags.remove(reference);
        record.references.remove(reference);
        // A digest keeps its image only where it was pulled by that digest.
        if !record.references.is_empty() {
            return false;
        }
        self.images.remove(id);
        true
    }
}

/// Why the index could not be read.
#[derive(Debug)]
pub(crate) enum LoadError {
    Io(io::Error),
    Json(serde_json::Error),
}

/// Makes a rename into the directory of `path` durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            repo_tags: BTreeSet::new(),
            repo_digests: BTreeSet::new(),
            references: BTreeSet::new(),
            size_bytes: 1,
            config: ImageConfig::default(),
            passwd: None,
            group: None,
        }
    }

    fn index_with(ids: &[&str]) -> Index {
        let mut index = Index::default();
        for id in ids {
            index.images.insert((*id).to_owned(), record());
        }
        index
    }

    #[test]
    fn a_tag_moves_to_the_newer_image() {
        let mut index = index_with(&["sha256:a", "sha256:b"]);
        index.name("sha256:a", "r/x:1", true, "r/x@sha256:1");
        index.name("sha256:b", "r/x:1", true, "r/x@sha256:2");
        assert_eq!(index.resolve("r/x:1"), Some("sha256:b"));
        assert!(index.images["sha256:a"].repo_tags.is_empty());
        assert_eq!(index.resolve("r/x@sha256:1"), Some("sha256:a"));
    }

    #[test]
    fn an_image_goes_with_its_last_name() {
        let mut index = index_with(&["sha256:a"]);
        index.name("sha256:a", "r/x:1", true, "r/x@sha256:1");
        index.name("sha256:a", "r/x:2", true, "r/x@sha256:1");
        assert!(!index.unname("sha256:a", "r/x:1"));
        assert!(index.unname("sha256:a", "r/x:2"));
        assert!(index.images.is_empty());
    }

    #[test]
    fn resolves_ids_and_unique_prefixes() {
        let one = format!("sha256:{}", "1234567890abcdef".repeat(4));
        let two = format!("sha256:{}", "1234567890abcdee".repeat(4));
        let index = index_with(&[&one, &two]);
        assert_eq!(index.resolve(&one), Some(one.as_str()));
        assert_eq!(index.resolve(&one["sha256:".len()..]), Some(one.as_str()));
        assert_eq!(index.resolve_prefix("1234567890abcdef"), Some(one.as_str()));
        assert_eq!(index.resolve_prefix("1234567890ab"), None);
        assert_eq!(index.resolve_prefix("1234"), None);
    }

    #[test]
    fn refuses_an_index_of_another_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.json");
        fs::write(&path, r#"{"version": 99, "images": {}}"#).unwrap();
        assert!(matches!(Index::load(&path), Err(LoadError::Json(_))));
        let index = index_with(&["sha256:a"]);
        index.save(&path).unwrap();
        assert_eq!(Index::load(&path).unwrap().images, index.images);
    }
}
