//! Volumes: sets of files that are replaced as a whole ([`files`]), and empty
//! directories on the scratch filesystem or in memory.
//!
//! Containers may write to a volume, so everything below its root is resolved by the
//! kernel inside that root ([`crate::resolve`]).

mod files;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use hull_agent_protocol::v1::SyncVolumeRequest;
use hull_agent_protocol::v1::sync_volume_request::Kind;
use nix::mount::MsFlags;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use tonic::Code;

use crate::layout::Layout;
use crate::mounts::{self, MountError};
use crate::name::{self, InvalidName};
use crate::resolve;

/// Mode of an emptyDir that names none.
const EMPTY_DIR_MODE: u32 = 0o777;
/// Mode of a directory of files that names none.
const FILES_DIR_MODE: u32 = 0o755;

/// Why a volume cannot be written, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A name that may not be used.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Not a relative path inside the volume.
    #[error("{0:?} is not a path inside a volume")]
    Path(String),
    /// The kind is none that this agent knows.
    #[error("unknown volume kind {0}")]
    Kind(i32),
    /// The volume is of another kind.
    #[error("volume {0:?} exists and is of another kind")]
    OtherKind(String),
    /// There is no such volume.
    #[error("volume {0:?} does not exist")]
    NotFound(String),
    /// There is no such file in the volume.
    #[error("volume {name:?} has no {path:?}")]
    NoPath {
        /// The volume.
        name: String,
        /// The path inside it.
        path: String,
    },
    /// Containers use it.
    #[error("volume {0:?} is in use")]
    InUse(String),
    /// An emptyDir before SetupSandbox.
    #[error("SetupSandbox must come before emptyDirs: there is no scratch filesystem")]
    NoScratch,
    /// See [`MountError`].
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The operating system refused.
    #[error("cannot {doing} volume {name:?}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The volume.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl VolumeError {
    /// The gRPC status code that this error becomes.
    pub fn code(&self) -> Code {
        match self {
            VolumeError::Name(_) | VolumeError::Path(_) | VolumeError::Kind(_) => {
                Code::InvalidArgument
            }
            VolumeError::NotFound(_) | VolumeError::NoPath { .. } => Code::NotFound,
            VolumeError::OtherKind(_) | VolumeError::InUse(_) | VolumeError::NoScratch => {
                Code::FailedPrecondition
            }
            VolumeError::Mount(_) | VolumeError::Io { .. } => Code::Internal,
        }
    }
}

/// The sandbox's volumes. Methods block.
#[derive(Debug)]
pub struct Volumes {
    layout: Layout,
    volumes: Mutex<HashMap<String, Volume>>,
}

#[derive(Debug)]
struct Volume {
    kind: Kind,
    path: PathBuf,
    users: usize,
    /// What is there, to skip writing it again.
    synced: SyncVolumeRequest,
}

impl Volumes {
    /// No volumes yet.
    pub fn new(layout: Layout) -> Volumes {
        Volumes {
            layout,
            volumes: Mutex::default(),
        }
    }

    /// Makes the volume or replaces its files. Returns its path.
    ///
    /// # Errors
    /// [`VolumeError`]; the former content stays then.
    pub fn sync(&self, request: SyncVolumeRequest) -> Result<PathBuf, VolumeError> {
        name::check("volume name", &request.name)?;
        let kind = Kind::try_from(request.kind).map_err(|_| VolumeError::Kind(request.kind))?;
        let mut volumes = self.volumes.lock();
        let known = volumes.get_mut(&request.name);
        if let Some(volume) = &known {
            if volume.kind != kind {
                return Err(VolumeError::OtherKind(request.name));
            }
            if kind != Kind::Files || volume.synced == request {
                return Ok(volume.path.clone());
            }
        }
        let path = match kind {
            Kind::Files => self.sync_files(&request)?,
            Kind::EmptyDir => self.make_empty_dir(&request)?,
            Kind::EmptyDirMemory => self.mount_memory(&request)?,
        };
        match known {
            Some(volume) => volume.synced = request,
            None => {
                let volume = Volume {
                    kind,
                    path: path.clone(),
                    users: 0,
                    synced: request.clone(),
                };
                volumes.insert(request.name, volume);
            }
        }
        Ok(path)
    }

    fn sync_files(&self, request: &SyncVolumeRequest) -> Result<PathBuf, VolumeError> {
        files::check(&request.files)?;
        let path = self.layout.volume(&request.name);
        let mode = mode_or(request.dir_mode, FILES_DIR_MODE);
        make_directory(&path, mode)
            .and_then(|()| files::replace(&path, &request.files, mode))
            .map_err(failed("write", &request.name))?;
        Ok(path)
    }

    fn make_empty_dir(&self, request: &SyncVolumeRequest) -> Result<PathBuf, VolumeError> {
        let path = self.layout.scratch_volume(&request.name);
        if !path.parent().is_some_and(Path::exists) {
            return Err(VolumeError::NoScratch);
        }
        let mode = mode_or(request.dir_mode, EMPTY_DIR_MODE);
        std::fs::create_dir_all(&path)
            // Changing the owner clears the set-group-id bit: the mode comes after it.
            .and_then(|()| chown(&path, Some(request.dir_uid), Some(request.dir_gid)))
            .and_then(|()| make_directory(&path, mode))
            .map_err(failed("make", &request.name))?;
        Ok(path)
    }

    fn mount_memory(&self, request: &SyncVolumeRequest) -> Result<PathBuf, VolumeError> {
        let path = self.layout.volume(&request.name);
        let mode = mode_or(request.dir_mode, EMPTY_DIR_MODE);
        let (uid, gid) = (request.dir_uid, request.dir_gid);
        let mut options = format!("mode={mode:o},uid={uid},gid={gid}");
        if request.size_limit_bytes > 0 {
            options.push_str(&format!(",size={}", request.size_limit_bytes));
        }
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        mounts::mount_at("tmpfs", Path::new("emptydir"), &path, flags, &options)?;
        Ok(path)
    }

    /// Removes the volume. One that does not exist is removed already.
    ///
    /// # Errors
    /// [`VolumeError::InUse`] while a container uses it.
    pub fn remove(&self, name: &str) -> Result<(), VolumeError> {
        name::check("volume name", name)?;
        let mut volumes = self.volumes.lock();
        let Some(volume) = volumes.get(name) else {
            return Ok(());
        };
        if volume.users > 0 {
            return Err(VolumeError::InUse(name.to_owned()));
        }
        mounts::unmount(&volume.path)?;
        match std::fs::remove_dir_all(&volume.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", name)(error));
            }
            _ => {}
        }
        volumes.remove(name);
        Ok(())
    }

    /// Reads at most `limit` bytes of a file of the volume.
    ///
    /// # Errors
    /// `NotFound` and `NoPath` say what is missing.
    pub fn read(&self, name: &str, path: &str, limit: u64) -> Result<Vec<u8>, VolumeError> {
        name::check("volume name", name)?;
        if !resolve::is_inside(path) {
            return Err(VolumeError::Path(path.to_owned()));
        }
        let root = self.path(name)?;
        let read = resolve::root(&root)
            .and_then(|root| resolve::read_in_root(root, Path::new(path), limit));
        read.map_err(|error| missing_or("read", name, path, error))
    }

    /// Opens what a mount of type "hull-volume" names, `<volume>[/<path>]`, and counts a
    /// user of the volume. Returns the volume's name for [`Volumes::release`].
    ///
    /// # Errors
    /// As [`Volumes::read`].
    pub fn hold(&self, source: &str) -> Result<(String, OwnedFd), VolumeError> {
        let (name, path) = source.split_once('/').unwrap_or((source, ""));
        name::check("volume name", name)?;
        if !path.is_empty() && !resolve::is_inside(path) {
            return Err(VolumeError::Path(path.to_owned()));
        }
        let mut volumes = self.volumes.lock();
        let volume = volumes
            .get_mut(name)
            .ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        let opened = open(volume, path).map_err(|e| missing_or("open", name, path, e))?;
        volume.users += 1;
        Ok((name.to_owned(), opened))
    }

    /// A user of the volume is gone.
    pub fn release(&self, name: &str) {
        if let Some(volume) = self.volumes.lock().get_mut(name) {
            volume.users = volume.users.saturating_sub(1);
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, VolumeError> {
        let volumes = self.volumes.lock();
        let volume = volumes.get(name);
        let volume = volume.ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        Ok(volume.path.clone())
    }
}

fn open(volume: &Volume, path: &str) -> io::Result<OwnedFd> {
    let root = resolve::root(&volume.path)?;
    if path.is_empty() {
        return Ok(root);
    }
    let path = Path::new(path);
    match resolve::open_in_root(&root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && volume.kind != Kind::Files => {
            resolve::make_directories(&root, path, EMPTY_DIR_MODE)
        }
        other => other,
    }
}

fn mode_or(mode: u32, default: u32) -> u32 {
    if mode == 0 { default } else { mode & 0o7777 }
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn failed(doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> VolumeError {
    let name = name.to_owned();
    move |source| VolumeError::Io {
        doing,
        name,
        source,
    }
}

fn missing_or(doing: &'static str, name: &str, path: &str, error: io::Error) -> VolumeError {
    if error.kind() == io::ErrorKind::NotFound {
        return VolumeError::NoPath {
            name: name.to_owned(),
            path: path.to_owned(),
        };
    }
    failed(doing, name)(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_agent_protocol::v1::VolumeFile;

    fn volumes() -> (tempfile::TempDir, Volumes) {
        let base = tempfile::tempdir().unwrap();
        let layout = Layout::create(base.path().to_owned()).unwrap();
        (base, Volumes::new(layout))
    }

    fn files(name: &str, files: &[(&str, &str)]) -> SyncVolumeRequest {
        SyncVolumeRequest {
            name: name.into(),
            kind: Kind::Files.into(),
            files: files
                .iter()
                .map(|(path, content)| VolumeFile {
                    path: (*path).into(),
                    content: content.as_bytes().to_vec(),
                    mode: 0o644,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn file_is_read_back_and_missing_ones_are_named() {
        let (_base, volumes) = volumes();
        volumes.sync(files("v", &[("a/b", "hello")])).unwrap();
        assert_eq!(volumes.read("v", "a/b", 4).unwrap(), b"hell");
        assert_eq!(
            volumes.read("v", "nope", 4).unwrap_err().code(),
            Code::NotFound
        );
        assert_eq!(
            volumes.read("w", "a", 4).unwrap_err().code(),
            Code::NotFound
        );
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let (_base, volumes) = volumes();
        for path in ["../x", "/x", "a/../../x", "", "..data", "..2/x"] {
            let error = volumes.sync(files("v", &[(path, "x")])).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{path}");
        }
        for name in ["", "..", "a/b"] {
            let error = volumes.sync(files(name, &[])).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{name}");
        }
        volumes.sync(files("v", &[])).unwrap();
        let error = volumes.hold("v/../etc").unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }

    #[test]
    fn volume_in_use_is_not_removed() {
        let (_base, volumes) = volumes();
        let path = volumes.sync(files("v", &[("a", "1")])).unwrap();
        let (name, _fd) = volumes.hold("v/a").unwrap();
        assert!(matches!(volumes.remove("v"), Err(VolumeError::InUse(_))));
        volumes.release(&name);
        volumes.remove("v").unwrap();
        volumes.remove("v").unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn another_kind_under_the_same_name_is_refused() {
        let (_base, volumes) = volumes();
        volumes.sync(files("v", &[])).unwrap();
        let mut other = files("v", &[]);
        other.kind = Kind::EmptyDir.into();
        assert!(matches!(
            volumes.sync(other),
            Err(VolumeError::OtherKind(_))
        ));
    }
}
