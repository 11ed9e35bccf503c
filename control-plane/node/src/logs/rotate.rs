//! Rotation of container logs: one that grew too large is set aside under its name and the time,
//! older ones are compressed, and the oldest go.
//!
//! ```text
//!   c/0.log                       the runtime writes it
//!   c/0.log.20261122-120000       set aside last
//!   c/0.log.20261122-110000.gz    before that
//! ```

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::context::NodeContext;
use crate::cri::{container, labels};

/// Of a file being compressed.
const TEMPORARY: &str = ".tmp";
const COMPRESSED: &str = ".gz";

/// Looks at every running container's log at an interval until cancelled.
pub(crate) async fn run(node: Arc<NodeContext>, shutdown: CancellationToken) {
    let interval = node.config.timings.log_rotation_interval;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(interval) => rotate_all(&node).await,
        }
    }
}

async fn rotate_all(node: &NodeContext) {
    let containers = match node.cri.running_containers().await {
        Ok(containers) => containers,
        // The relist already says that the runtime is away.
        Err(_) => return,
    };
    for container in containers {
        let label = |name: &str| container.labels.get(name).cloned();
        let pod = (
            label(labels::POD_NAMESPACE),
            label(labels::POD_NAME),
            label(labels::POD_UID),
        );
        let (Some(namespace), Some(pod_name), Some(uid)) = pod else {
            continue;
        };
        let Some(metadata) = &container.metadata else {
            continue;
        };
        let directory = node.config.pod_log_dir(&namespace, &pod_name, &uid);
        let path = directory.join(container::log_path(&metadata.name, metadata.attempt));
        if let Err(error) = rotate(node, &container.id, &path).await {
            tracing::warn!(path = %path.display(), %error, "log not rotated, trying again");
        }
    }
}

/// A rotation that failed.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error("{action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("reopen the log: {0}")]
    Reopen(#[from] crate::cri::CriError),
    #[error("the work on the log was given up")]
    Task,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RotateError {
    let path = path.to_owned();
    move |source| RotateError::Io {
        action,
        path,
        source,
    }
}

async fn rotate(node: &NodeContext, id: &str, path: &Path) -> Result<(), RotateError> {
    let limit = node.config.log_max_bytes;
    let large = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > limit);
    if !large {
        return Ok(());
    }
    let kept = node.config.log_max_files;
    let log = path.to_owned();
    tokio::task::spawn_blocking(move || tidy(&log, kept))
        .await
        .map_err(|_| RotateError::Task)??;
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let aside = with_suffix(path, &format!(".{stamp}"));
    std::fs::rename(path, &aside).map_err(failed("rename", path))?;
    if let Err(error) = node.cri.reopen_log(id).await {
        // Back, so that the log is found and the next attempt starts anew.
        std::fs::rename(&aside, path).map_err(failed("rename", &aside))?;
        return Err(error.into());
    }
    tracing::debug!(path = %path.display(), "log rotated");
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What was set aside of a log, oldest first.
fn set_aside(path: &Path) -> Vec<PathBuf> {
    let Some(prefix) = path.file_name().and_then(|name| name.to_str()) else {
        return Vec::new();
    };
    let prefix = format!("{prefix}.");
    let entries = path
        .parent()
        .and_then(|parent| std::fs::read_dir(parent).ok());
    let mut found: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Makes room for one more: removes half-done work and what is too old, compresses the rest.
fn tidy(path: &Path, kept: usize) -> Result<(), RotateError> {
    let mut found = Vec::new();
    for file in set_aside(path) {
        let name = file.to_string_lossy().into_owned();
        // Compressed, and the original was not removed any more.
        let done = with_suffix(&file, COMPRESSED).exists();
        if name.ends_with(TEMPORARY) || done {
            std::fs::remove_file(&file).map_err(failed("remove", &file))?;
        } else {
            found.push(file);
        }
    }
    // The present log and the one to be set aside count too.
    let excess = found.len().saturating_sub(kept.saturating_sub(2));
    for file in found.drain(..excess) {
        std::fs::remove_file(&file).map_err(failed("remove", &file))?;
    }
    let plain = found
        .iter()
        .filter(|file| !file.to_string_lossy().ends_with(COMPRESSED));
    for file in plain {
        compress(file)?;
    }
    Ok(())
}

fn compress(file: &Path) -> Result<(), RotateError> {
    let temporary = with_suffix(file, TEMPORARY);
    let mut source = File::open(file).map_err(failed("open", file))?;
    let target = File::create(&temporary).map_err(failed("create", &temporary))?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut source, &mut encoder).map_err(failed("compress", file))?;
    encoder.finish().map_err(failed("compress", file))?;
    let done = with_suffix(file, COMPRESSED);
    std::fs::rename(&temporary, &done).map_err(failed("rename", &temporary))?;
    std::fs::remove_file(file).map_err(failed("remove", file))
}

/// Removes a log with all that was set aside of it.
pub(crate) fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
    for file in set_aside(path) {
        let _ = std::fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn old_logs_are_compressed_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        for (suffix, text) in [
            ("", "now"),
            (".20261122-100000.gz", "oldest"),
            (".20261122-110000", "older"),
            (".20261122-120000", "old"),
            (".20261122-120000.tmp", "half done"),
        ] {
            std::fs::write(with_suffix(&path, suffix), text).unwrap();
        }
        tidy(&path, 4).unwrap();
        let names: Vec<String> = set_aside(&path)
            .iter()
            .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(
            names,
            ["0.log.20261122-110000.gz", "0.log.20261122-120000.gz"]
        );
        let compressed = File::open(directory.path().join(&names[1])).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(compressed)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "old");
        remove(&path);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
