//! Directories of the host: one virtio-fs file system, in which each share is a directory
//! of its own. It is mounted when the first container uses one.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use parking_lot::Mutex;
use tonic::Code;

use crate::layout::Layout;
use crate::mounts::{self, MountError};
use crate::name::{self, InvalidName};
use crate::resolve;

/// Tag of the virtio-fs device.
const TAG: &str = "hull";

/// Why a share cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// A name that may not be used.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Not a path inside a share.
    #[error("{0:?} is not a path inside a share")]
    Path(String),
    /// See [`MountError`].
    #[error(transparent)]
    Mount(#[from] MountError),
    /// It cannot be looked at: it is not there, or its server is gone.
    #[error("cannot open host volume {name:?}: {source}")]
    Open {
        /// The share.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl ShareError {
    /// The gRPC status code that this error becomes.
    pub fn code(&self) -> Code {
        match self {
            ShareError::Name(_) | ShareError::Path(_) => Code::InvalidArgument,
            ShareError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Code::NotFound
            }
            ShareError::Mount(_) | ShareError::Open { .. } => Code::Internal,
        }
    }
}

/// The host's directories. Methods block.
#[derive(Debug)]
pub struct Shares {
    layout: Layout,
    mounted: Mutex<bool>,
}

impl Shares {
    /// Nothing is mounted yet.
    pub fn new(layout: Layout) -> Shares {
        Shares {
            layout,
            mounted: Mutex::new(false),
        }
    }

    /// Finds what a mount of type "hull-share" names, `<share>[/<entry>]`. Returns the name of
    /// the share for [`Shares::release`], a path to bind, and whether that is a directory.
    ///
    /// # Errors
    /// [`ShareError`].
    pub fn find(&self, source: &str) -> Result<(String, PathBuf, bool), ShareError> {
        let share = source.split('/').next().unwrap_or_default();
        name::check("share name", share)?;
        if !resolve::is_inside(source) {
            return Err(ShareError::Path(source.to_owned()));
        }
        self.mount()?;
        let path = self.layout.shares().join(source);
        let metadata = std::fs::symlink_metadata(&path).map_err(|error| ShareError::Open {
            name: share.to_owned(),
            source: error,
        })?;
        Ok((share.to_owned(), path, metadata.is_dir()))
    }

    fn mount(&self) -> Result<(), MountError> {
        let mut mounted = self.mounted.lock();
        if !*mounted {
            let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
            mounts::mount_at("virtiofs", Path::new(TAG), &self.layout.shares(), flags, "")?;
            *mounted = true;
        }
        Ok(())
    }

    /// No container uses the share any more. Each share is mounted in the file system by the
    /// kernel at its first use; that mount would otherwise stay.
    pub fn release(&self, share: &str) {
        let path = self.layout.shares().join(share);
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        match umount2(&path, flags) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTCONN) => {}
            Err(error) => tracing::warn!(share, %error, "unmounting a host volume"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_shares_are_refused_before_anything_is_mounted() {
        let base = tempfile::tempdir().unwrap();
        let shares = Shares::new(Layout::create(base.path().to_owned()).unwrap());
        for source in ["", "/", "../x", "a/../b", "a/../../etc", "a/\0"] {
            let error = shares.find(source).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{source:?}: {error}");
        }
    }
}
