//! Volumes in the guest: copied files, again when they change, and empty directories.

use super::mounts::{self, PlannedMount};
use crate::error::Error;
use crate::guest::Guest;
use crate::journal::{VolumeKind, VolumeRecord};
use crate::sandbox::object::{Live, Sandbox};
use crate::shim::Shim;
use hull_agent_protocol::v1::{
    ReadVolumeFileRequest, SyncVolumeRequest, VolumeFile, sync_volume_request::Kind,
};
use hull_cri_api::v1::ContainerConfig;
use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Deepest directory of a copied volume.
const MAX_DEPTH: usize = 16;
/// Most files of a copied volume.
const MAX_FILES: usize = 4096;
/// Longest termination message that is brought back, bytes.
const MAX_MESSAGE_BYTES: u32 = 64 * 1024;
/// Content limits are given in MiB.
const MIB: u64 = 1 << 20;

/// Makes sure that the volume of a mount is in the guest.
pub async fn ensure(
    sandbox: &Sandbox,
    guest: &Guest,
    mount: &PlannedMount,
    max_copied_mib: u64,
) -> Result<(), Error> {
    let known = sandbox.record().volumes.get(&mount.volume).cloned();
    if known.as_ref() == Some(&mount.record) {
        return Ok(());
    }
    let request = request(
        &mount.volume,
        &mount.record,
        mount.size_limit_bytes,
        max_copied_mib,
    )
    .await?;
    sandbox.update(|record| {
        record
            .volumes
            .insert(mount.volume.clone(), mount.record.clone());
    })?;
    if let Err(error) = guest.sync_volume(request).await {
        sandbox.update(|record| record.volumes.remove(&mount.volume))?;
        return Err(error.into());
    }
    Ok(())
}

async fn request(
    name: &str,
    volume: &VolumeRecord,
    size_limit_bytes: u64,
    max_copied_mib: u64,
) -> Result<SyncVolumeRequest, Error> {
    let mut owner = DirectoryOwner::default();
    let (kind, files) = match volume.kind {
        VolumeKind::EmptyDir | VolumeKind::EmptyDirMemory => {
            owner = DirectoryOwner::of(&volume.host_path);
            let kind = match volume.kind {
                VolumeKind::EmptyDir => Kind::EmptyDir,
                _ => Kind::EmptyDirMemory,
            };
            (kind, Vec::new())
        }
        VolumeKind::Share => {
            return Err(Error::InvalidArgument(format!(
                "host path {} is shared, not copied",
                volume.host_path.display()
            )));
        }
        VolumeKind::Files | VolumeKind::File => {
            let path = volume.host_path.clone();
            let limit = max_copied_mib * MIB;
            let files = tokio::task::spawn_blocking(move || collect(&path, limit))
                .await
                .map_err(|_| Error::Task("reading a volume"))??;
            (Kind::Files, files)
        }
    };
    Ok(SyncVolumeRequest {
        name: name.to_string(),
        kind: kind as i32,
        files,
        dir_mode: owner.mode,
        size_limit_bytes,
        dir_uid: 0,
        dir_gid: owner.group,
    })
}

/// What a pod's fsGroup did to the host's directory of an emptyDir: its group, and the
/// set-group-id bit by which new files have it too.
#[derive(Default)]
struct DirectoryOwner {
    group: u32,
    mode: u32,
}

impl DirectoryOwner {
    /// Of a directory that is not there: nothing.
    fn of(path: &Path) -> Self {
        /// Mode of an emptyDir.
        const MODE: u32 = 0o777;
        const SET_GROUP_ID: u32 = 0o2000;
        match std::fs::metadata(path) {
            Ok(metadata) => Self {
                group: metadata.gid(),
                mode: MODE | (metadata.mode() & SET_GROUP_ID),
            },
            Err(_) => Self::default(),
        }
    }
}

/// Reads a file, or a directory with what is below it. Entries that begin with `..`
/// are the bookkeeping of atomically written volumes: `..data` points to the content,
/// which the other entries lead to.
fn collect(root: &Path, limit: u64) -> Result<Vec<VolumeFile>, Error> {
    let mut walk = Walk {
        files: Vec::new(),
        bytes: 0,
        limit,
        root,
    };
    let metadata =
        std::fs::metadata(root).map_err(Error::io(format!("reading volume {}", root.display())))?;
    if metadata.is_dir() {
        walk.directory(root, "", 0)?;
    } else {
        let name = root
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        walk.file(root, name.unwrap_or_default())?;
    }
    Ok(walk.files)
}

struct Walk<'a> {
    files: Vec<VolumeFile>,
    bytes: u64,
    limit: u64,
    root: &'a Path,
}

impl Walk<'_> {
    fn too_much(&self, what: String) -> Error {
        Error::InvalidArgument(format!(
            "volume {} cannot be copied into the guest: {what}",
            self.root.display()
        ))
    }

    fn directory(&mut self, path: &Path, prefix: &str, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(self.too_much(format!("it is more than {MAX_DEPTH} directories deep")));
        }
        let context = || format!("reading volume {}", path.display());
        for entry in std::fs::read_dir(path).map_err(Error::io(context()))? {
            let entry = entry.map_err(Error::io(context()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("..") {
                continue;
            }
            let relative = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            };
            // Follows links: each visible entry of an atomic volume is one.
            let metadata = std::fs::metadata(entry.path()).map_err(Error::io(context()))?;
            if metadata.is_dir() {
                self.directory(&entry.path(), &relative, depth + 1)?;
            } else {
                self.file(&entry.path(), relative)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, relative: String) -> Result<(), Error> {
        let context = || format!("reading {}", path.display());
        let metadata = std::fs::metadata(path).map_err(Error::io(context()))?;
        if !metadata.is_file() {
            return Err(self.too_much(format!("{relative} is not a regular file")));
        }
        self.bytes = self.bytes.saturating_add(metadata.len());
        if self.bytes > self.limit {
            return Err(self.too_much(format!(
                "it holds more than {} MiB (volumes.max_copied_mib)",
                self.limit / MIB
            )));
        }
        if self.files.len() >= MAX_FILES {
            return Err(self.too_much(format!("it holds more than {MAX_FILES} files")));
        }
        let content = std::fs::read(path).map_err(Error::io(context()))?;
        self.files.push(VolumeFile {
            path: relative,
            content,
            mode: metadata.permissions().mode() & 0o7777,
            // The node agent gave a token to the pod's only user, and the files to its fsGroup.
            uid: metadata.uid(),
            gid: metadata.gid(),
        });
        Ok(())
    }
}

/// Brings the files that a container may have written (its termination message) back
/// to the host after its exit. Failing that, the host's files stay as they are.
pub async fn copy_back(sandbox: &Sandbox, guest: &Guest, config: &ContainerConfig) {
    let pod = sandbox.record().config;
    let uid = pod.metadata.unwrap_or_default().uid;
    for mount in config.mounts.iter().filter(|mount| !mount.readonly) {
        let Ok(planned) = mounts::plan(mount, &uid, &pod.annotations) else {
            continue;
        };
        let host = planned.record.host_path;
        if planned.record.kind != VolumeKind::File || !is_message_file(&host) {
            continue;
        }
        let request = ReadVolumeFileRequest {
            name: planned.volume,
            path: planned.sub_path,
            max_bytes: MAX_MESSAGE_BYTES,
        };
        let written = match guest.read_volume_file(request).await {
            Ok(file) => tokio::fs::write(&host, file.content)
                .await
                .map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = written {
            tracing::debug!(sandbox_id = sandbox.id, path = %host.display(), error, "copying a file back");
        }
    }
}

/// `…/pods/<uid>/containers/<container>/<file>`: a regular file that exists on the host.
fn is_message_file(path: &Path) -> bool {
    let is_place = path
        .ancestors()
        .nth(2)
        .is_some_and(|dir| dir.ends_with("containers"));
    is_place && std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// What tells that a volume's files changed: the target of `..data`, or else the
/// modification times of the entries.
fn fingerprint(path: &Path) -> Option<String> {
    if let Ok(target) = std::fs::read_link(path.join("..data")) {
        return Some(target.to_string_lossy().into_owned());
    }
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some(format!(
            "{}:{}.{}:{}",
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.len()
        ))
    };
    let mut text = stamp(path)?;
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        entries.sort();
        for entry in entries {
            text.push_str(&stamp(&entry)?);
        }
    }
    Some(text)
}

/// Starts the task that copies changed volumes again, until the VM ends.
pub fn begin_resync(shim: &Arc<Shim>, sandbox: &Arc<Sandbox>, live: Live) {
    let interval = Duration::from_millis(shim.config.volumes.resync_interval_ms);
    let max_copied_mib = shim.config.volumes.max_copied_mib;
    let sandbox = sandbox.clone();
    tokio::spawn(async move {
        let mut seen: HashMap<String, String> = HashMap::new();
        loop {
            tokio::select! {
                () = live.tasks.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            for (name, volume) in sandbox.record().volumes {
                // A single file may be written by the container (termination
                // message): copying it again would overwrite that.
                if volume.kind == VolumeKind::Files {
                    resync(
                        &sandbox.id,
                        &live.guest,
                        &name,
                        &volume,
                        &mut seen,
                        max_copied_mib,
                    )
                    .await;
                }
            }
        }
    });
}

async fn resync(
    sandbox_id: &str,
    guest: &Guest,
    name: &str,
    volume: &VolumeRecord,
    seen: &mut HashMap<String, String>,
    max_copied_mib: u64,
) {
    let Some(now) = fingerprint(&volume.host_path) else {
        return;
    };
    // The first look after a start of the shim copies once: what changed while no
    // shim ran is not known.
    if seen.get(name) == Some(&now) {
        return;
    }
    let copied = match request(name, volume, 0, max_copied_mib).await {
        Ok(request) => guest
            .sync_volume(request)
            .await
            .map(drop)
            .map_err(Error::from),
        Err(error) => Err(error),
    };
    match copied {
        Ok(()) => {
            tracing::debug!(sandbox_id, volume = name, "volume copied again");
            seen.insert(name.to_string(), now);
        }
        Err(error) => tracing::warn!(sandbox_id, volume = name, %error, "copying a changed volume"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node agent writes: `..data` -> `..1`, `key` -> `..data/key`.
    fn atomic_volume(dir: &Path, content: &str, generation: &str) {
        std::fs::create_dir(dir.join(generation)).unwrap();
        std::fs::write(dir.join(generation).join("key"), content).unwrap();
        let _ = std::fs::remove_file(dir.join("..data"));
        std::os::unix::fs::symlink(generation, dir.join("..data")).unwrap();
        let _ = std::os::unix::fs::symlink("..data/key", dir.join("key"));
    }

    #[test]
    fn visible_files_are_collected_and_bookkeeping_is_not() {
        let dir = tempfile::tempdir().unwrap();
        atomic_volume(dir.path(), "one", "..1");
        let files = collect(dir.path(), MIB).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(
            (files[0].path.as_str(), files[0].content.as_slice()),
            ("key", &b"one"[..])
        );
    }

    #[tokio::test]
    async fn what_fs_group_did_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::fs::write(path.join("key"), "x").unwrap();
        std::os::unix::fs::chown(path.join("key"), Some(0), Some(4711)).unwrap();
        std::os::unix::fs::chown(path, Some(0), Some(4711)).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o2775)).unwrap();
        assert_eq!(collect(path, MIB).unwrap()[0].gid, 4711);
        let volume = |kind, host_path: &Path| VolumeRecord {
            kind,
            host_path: host_path.into(),
        };
        let empty = volume(VolumeKind::EmptyDir, path);
        let made = request("e", &empty, 0, 1).await.unwrap();
        assert_eq!((made.dir_gid, made.dir_mode), (4711, 0o2777));
        let absent = volume(VolumeKind::EmptyDirMemory, Path::new("/no/such/dir"));
        let made = request("e", &absent, 0, 1).await.unwrap();
        assert_eq!((made.dir_gid, made.dir_mode), (0, 0));
    }

    #[test]
    fn a_change_changes_the_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        atomic_volume(dir.path(), "one", "..1");
        let before = fingerprint(dir.path()).unwrap();
        assert_eq!(fingerprint(dir.path()).unwrap(), before);
        atomic_volume(dir.path(), "two", "..2");
        assert_ne!(fingerprint(dir.path()).unwrap(), before);
    }

    #[test]
    fn too_much_content_is_refused_with_the_key_that_limits_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("big"), vec![0; 2 << 20]).unwrap();
        let error = collect(dir.path(), MIB).unwrap_err().to_string();
        assert!(error.contains("max_copied_mib"), "{error}");
    }
}
