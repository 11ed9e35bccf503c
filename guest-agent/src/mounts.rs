//! mount(2) with errors that say what was mounted where.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mount or unmount that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {what} at {target}: {source}")]
pub struct MountError {
    doing: &'static str,
    what: String,
    target: PathBuf,
    source: io::Error,
}

/// Mounts a filesystem; makes the mount point if it is missing.
///
/// # Errors
/// From mkdir(2) and mount(2).
pub fn mount_at(
    kind: &str,
    source: &Path,
    target: &Path,
    flags: MsFlags,
    data: &str,
) -> Result<(), MountError> {
    std::fs::create_dir_all(target)
        .and_then(|()| Ok(mount(Some(source), target, Some(kind), flags, Some(data))?))
        .map_err(|error| MountError {
            doing: "mount",
            what: format!("{kind} {}", source.display()),
            target: target.to_owned(),
            source: error,
        })
}

/// Bind-mounts `source` (not what is mounted below it) on an existing target.
///
/// # Errors
/// From mount(2).
pub fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none).map_err(|error| MountError {
        doing: "bind",
        what: source.display().to_string(),
        target: target.to_owned(),
        source: error.into(),
    })
}

/// Unmounts everything that is mounted on `target`; nothing there is no error.
///
/// # Errors
/// From umount2(2): EBUSY when somebody uses it.
pub fn unmount(target: &Path) -> Result<(), MountError> {
    loop {
        match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => {
                return Err(MountError {
                    doing: "unmount",
                    what: "what is mounted".into(),
                    target: target.to_owned(),
                    source: error.into(),
                });
            }
        }
    }
}
