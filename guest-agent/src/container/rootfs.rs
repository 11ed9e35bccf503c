//! Container roots: an image's read-only EROFS filesystem under an overlay whose
//! writable layer is on the scratch filesystem.
//!
//! One image is mounted once and counted: containers of the same image share it, and
//! its disk is released when the last of them is removed.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use parking_lot::Mutex;
use tonic::Code;

use crate::disk::{self, DiskError};
use crate::layout::Layout;
use crate::mounts::{self, MountError};

/// Why a root could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum RootFsError {
    /// See [`DiskError`].
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// See [`MountError`].
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The scratch filesystem is missing.
    #[error("SetupSandbox must come before the first container: there is no scratch filesystem")]
    NoScratch,
    /// A directory that cannot be a lower layer.
    #[error("{0:?} cannot be a root: not a directory, or its path has a comma, colon or backslash")]
    BadDirectory(PathBuf),
    /// The operating system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl RootFsError {
    /// The gRPC status code that this error becomes.
    pub fn code(&self) -> Code {
        match self {
            RootFsError::Disk(error) => error.code(),
            RootFsError::NoScratch => Code::FailedPrecondition,
            RootFsError::BadDirectory(_) => Code::InvalidArgument,
            RootFsError::Mount(_) | RootFsError::Io { .. } => Code::Internal,
        }
    }
}

/// Makes and removes container roots. Its methods block.
#[derive(Debug)]
pub struct RootFs {
    layout: Layout,
    /// Whether a root may be a directory: on a host only.
    directories: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    scratch: Option<Scratch>,
    images: HashMap<String, Image>,
}

#[derive(Debug)]
struct Scratch {
    disk: String,
}

#[derive(Debug)]
struct Image {
    device: PathBuf,
    users: usize,
}

impl RootFs {
    /// Roots below `layout`. `directories`: whether absolute paths are taken for disks.
    pub fn new(layout: Layout, directories: bool) -> RootFs {
        RootFs {
            layout,
            directories,
            state: Mutex::default(),
        }
    }

    /// Mounts the scratch filesystem: the ext4 disk with this serial number, or a tmpfs
    /// if it is empty. Idempotent.
    ///
    /// # Errors
    /// From waiting for the disk and mounting it.
    pub fn mount_scratch(&self, disk: &str) -> Result<(), RootFsError> {
        let mut state = self.state.lock();
        if state.scratch.as_ref().is_some_and(|s| s.disk == disk) {
            return Ok(());
        }
        let target = self.layout.scratch();
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        if disk.is_empty() {
            mounts::mount_at("tmpfs", Path::new("scratch"), &target, flags, "mode=0711")?;
        } else {
            let device = disk::wait_attached(disk)?;
            // Space of deleted files goes back to the host.
            mounts::mount_at("ext4", &device, &target, flags, "discard")?;
            set_mode(&target, 0o711)?;
        }
        for name in ["layers", "volumes"] {
            make_directory(&target.join(name), 0o711)?;
        }
        state.scratch = Some(Scratch {
            disk: disk.to_owned(),
        });
        Ok(())
    }

    /// Mounts the root of container `id` and returns its path.
    ///
    /// # Errors
    /// [`RootFsError`]; nothing stays mounted then.
    pub fn mount(&self, id: &str, disk: &str) -> Result<PathBuf, RootFsError> {
        let mut state = self.state.lock();
        if state.scratch.is_none() {
            return Err(RootFsError::NoScratch);
        }
        let is_directory = self.directories && disk.starts_with('/');
        let lower = match is_directory {
            true => check_directory(disk)?,
            false => self.hold_image(&mut state, disk)?,
        };
        let mounted = self.mount_overlay(id, &lower);
        if mounted.is_err() && !is_directory {
            self.release_image(&mut state, disk)?;
        }
        mounted
    }

    fn mount_overlay(&self, id: &str, lower: &Path) -> Result<PathBuf, RootFsError> {
        let layer = self.layout.layer(id);
        remove_tree(&layer)?;
        make_directory(&layer, 0o700)?;
        let (upper, work) = (layer.join("upper"), layer.join("work"));
        make_directory(&upper, root_mode(lower)?)?;
        make_directory(&work, 0o700)?;
        let root = self.layout.container(id).join("rootfs");
        // volatile: the layer does not outlive the sandbox, so nothing needs to be synced.
        let options = format!(
            "lowerdir={},upperdir={},workdir={},volatile",
            lower.display(),
            upper.display(),
            work.display()
        );
        mounts::mount_at(
            "overlay",
            Path::new("overlay"),
            &root,
            MsFlags::empty(),
            &options,
        )?;
        Ok(root)
    }

    /// Unmounts the root of container `id`, deletes its layer, and, if it was the last
    /// container of its image, waits until the disk can be detached. Idempotent.
    ///
    /// # Errors
    /// From umount(2), unlink(2), and waiting for the disk.
    pub fn unmount(&self, id: &str, disk: &str) -> Result<(), RootFsError> {
        let mut state = self.state.lock();
        let root = self.layout.container(id).join("rootfs");
        let was_there = root.exists();
        if was_there {
            mounts::unmount(&root)?;
        }
        remove_tree(&self.layout.layer(id))?;
        if was_there {
            let failed = failed("remove", &root);
            std::fs::remove_dir(&root).map_err(failed)?;
            if state.images.contains_key(disk) {
                self.release_image(&mut state, disk)?;
            }
        }
        Ok(())
    }

    /// Unmounts the scratch filesystem, so that an ext4 disk is clean.
    ///
    /// # Errors
    /// From umount(2).
    pub fn unmount_scratch(&self) -> Result<(), RootFsError> {
        if self.state.lock().scratch.take().is_some() {
            mounts::unmount(&self.layout.scratch())?;
        }
        Ok(())
    }

    fn hold_image(&self, state: &mut State, disk: &str) -> Result<PathBuf, RootFsError> {
        let target = self.layout.image(disk);
        if let Some(image) = state.images.get_mut(disk) {
            image.users += 1;
            return Ok(target);
        }
        let device = disk::wait_attached(disk)?;
        disk::wait_erofs(disk, &device)?;
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        mounts::mount_at("erofs", &device, &target, flags, "")?;
        state
            .images
            .insert(disk.to_owned(), Image { device, users: 1 });
        Ok(target)
    }

    fn release_image(&self, state: &mut State, disk: &str) -> Result<(), RootFsError> {
        let Some(image) = state.images.get_mut(disk) else {
            return Ok(());
        };
        image.users -= 1;
        if image.users > 0 {
            return Ok(());
        }
        let target = self.layout.image(disk);
        let device = image.device.clone();
        state.images.remove(disk);
        mounts::unmount(&target)?;
        std::fs::remove_dir(&target).map_err(failed("remove", &target))?;
        Ok(disk::wait_released(&device)?)
    }
}

/// Lower layers are separated by colons in overlay's options.
fn check_directory(path: &str) -> Result<PathBuf, RootFsError> {
    let directory = PathBuf::from(path);
    if path.contains([',', ':', '\\']) || !directory.is_dir() {
        return Err(RootFsError::BadDirectory(directory));
    }
    Ok(directory)
}

/// The image's own root directory mode, which the upper directory's mode hides.
fn root_mode(lower: &Path) -> Result<u32, RootFsError> {
    let metadata = std::fs::metadata(lower).map_err(failed("look at", lower))?;
    Ok(metadata.permissions().mode() & 0o7777)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), RootFsError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(failed("make directory", path))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), RootFsError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(failed("set the mode of", path))
}

fn remove_tree(path: &Path) -> Result<(), RootFsError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootFsError {
    let path = path.to_owned();
    move |source| RootFsError::Io {
        doing,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_that_would_confuse_overlay_is_refused() {
        for path in [
            "/tmp:/etc",
            "/tmp,upperdir=/etc",
            "/nonexistent",
            "/etc/passwd",
        ] {
            assert!(check_directory(path).is_err(), "{path}");
        }
        assert!(check_directory("/tmp").is_ok());
    }

    #[test]
    fn container_before_the_sandbox_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let layout = Layout::create(base.path().to_owned()).unwrap();
        let roots = RootFs::new(layout, true);
        let error = roots.mount("c", "/tmp").unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
    }
}
