//! Files.

use super::records::{ContainerRecord, LogCheckpoint, SandboxRecord};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("journal: {action} {path}: {source}")]
pub struct JournalError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Replaces the file at `path` so that a crash leaves the old or the new content.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path
        .parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(parent)?.sync_all()
}

/// The directory of records.
#[derive(Debug, Clone)]
pub struct Journal {
    root: PathBuf,
}

impl Journal {
    /// Opens (and makes) the journal in `root`.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let root = root.into();
        std::fs::create_dir_all(&root).map_err(|source| JournalError {
            action: "making",
            path: root.clone(),
            source,
        })?;
        Ok(Self { root })
    }

    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    fn container_path(&self, sandbox_id: &str, id: &str) -> PathBuf {
        self.sandbox_dir(sandbox_id)
            .join("containers")
            .join(format!("{id}.json"))
    }

    fn log_path(&self, sandbox_id: &str, id: &str) -> PathBuf {
        self.sandbox_dir(sandbox_id)
            .join("logs")
            .join(format!("{id}.json"))
    }

    /// Writes a sandbox's record.
    pub fn save_sandbox(&self, record: &SandboxRecord) -> Result<(), JournalError> {
        self.save(&self.sandbox_dir(&record.id).join("sandbox.json"), record)
    }

    /// Writes a container's record.
    pub fn save_container(&self, record: &ContainerRecord) -> Result<(), JournalError> {
        self.save(&self.container_path(&record.sandbox_id, &record.id), record)
    }

    /// Writes how far a log is.
    pub fn save_log(
        &self,
        sandbox_id: &str,
        id: &str,
        checkpoint: &LogCheckpoint,
    ) -> Result<(), JournalError> {
        // A container that was removed meanwhile needs none.
        if !self.container_path(sandbox_id, id).exists() {
            return Ok(());
        }
        self.save(&self.log_path(sandbox_id, id), checkpoint)
    }

    /// How far a log is; the beginning if nothing was written down.
    pub fn load_log(&self, sandbox_id: &str, id: &str) -> LogCheckpoint {
        load(&self.log_path(sandbox_id, id))
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    /// Forgets a container.
    pub fn remove_container(&self, sandbox_id: &str, id: &str) -> Result<(), JournalError> {
        for path in [
            self.log_path(sandbox_id, id),
            self.container_path(sandbox_id, id),
        ] {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(JournalError {
                        action: "removing",
                        path,
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets a sandbox with all its containers.
    pub fn remove_sandbox(&self, id: &str) -> Result<(), JournalError> {
        let path = self.sandbox_dir(id);
        // The record goes first: a directory without one is what a crash in here leaves.
        let record = path.join("sandbox.json");
        let removal = match std::fs::remove_file(&record) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(source),
            _ => std::fs::remove_dir_all(&path),
        };
        match removal {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(JournalError {
                action: "removing",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Every sandbox and its containers. Files that do not parse are moved aside and
    /// logged: one broken file must not keep the node from its other pods.
    pub fn load_all(&self) -> Result<Vec<(SandboxRecord, Vec<ContainerRecord>)>, JournalError> {
        let mut all = Vec::new();
        for directory in list(&self.root)? {
            let Some(sandbox) = self.load_or_set_aside(&directory.join("sandbox.json")) else {
                // Left by a crash between removing the record and its directory, or
                // between making the directory and the record.
                if let Err(source) = std::fs::remove_dir_all(&directory) {
                    tracing::warn!(path = %directory.display(), %source, "removing a directory without a record");
                }
                continue;
            };
            let mut containers = Vec::new();
            for path in list(&directory.join("containers"))? {
                if path
                    .extension()
                    .is_some_and(|extension| extension == "json")
                {
                    containers.extend(self.load_or_set_aside(&path));
                }
            }
            all.push((sandbox, containers));
        }
        Ok(all)
    }

    fn load_or_set_aside<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        match load(path) {
            Ok(record) => record,
            Err(source) => {
                let aside = self.root.with_file_name("journal-damaged").join(
                    path.strip_prefix(&self.root)
                        .unwrap_or(path)
                        .to_string_lossy()
                        .replace('/', "_"),
                );
                tracing::error!(path = %path.display(), aside = %aside.display(), %source, "damaged journal file");
                if let Some(parent) = aside.parent() {
                    let _ = std::fs::create_dir_all(parent);
                }
                let _ = std::fs::rename(path, aside);
                None
            }
        }
    }

    fn save<T: Serialize>(&self, path: &Path, record: &T) -> Result<(), JournalError> {
        let fail = |action| {
            move |source| JournalError {
                action,
                path: path.to_path_buf(),
                source,
            }
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(fail("making the directory of"))?;
        }
        let bytes = serde_json::to_vec_pretty(record)
            .map_err(|error| fail("encoding")(io::Error::other(error)))?;
        write_atomically(path, &bytes).map_err(fail("writing"))
    }
}

fn load<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let fail = |source| JournalError {
        action: "listing",
        path: directory.to_path_buf(),
        source,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(fail)?.path());
    }
    paths.sort();
    Ok(paths)
}
