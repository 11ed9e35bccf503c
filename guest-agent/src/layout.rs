//! Where the agent keeps what it makes. One directory, private to the agent:
//!
//! ```text
//! BASE/engine/<container>/                  libcontainer's state
//! BASE/containers/<container>/rootfs        mount point of the root
//! BASE/containers/<container>/bundle        config.json
//! BASE/containers/<container>/mounts/<n>    volumes, bind-mounted for this container
//! BASE/images/<disk>                        mount points of EROFS images
//! BASE/scratch/                             the scratch disk or a tmpfs
//! BASE/scratch/layers/<container>/          overlay upper and work directories
//! BASE/scratch/volumes/<volume>             emptyDirs
//! BASE/volumes/<volume>                     files and in-memory emptyDirs
//! BASE/shares/<share>                       directories of the host, by virtio-fs
//! BASE/etc/                                 hosts, hostname, resolv.conf
//! BASE/shm/                                 /dev/shm of the containers
//! ```
//! BASE is /run/hull in a guest and `state` in the listen directory on a host.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The directories of one agent.
#[derive(Debug, Clone)]
pub struct Layout {
    base: PathBuf,
}

impl Layout {
    /// Makes the directories below `base`.
    ///
    /// # Errors
    /// From mkdir(2).
    pub fn create(base: PathBuf) -> io::Result<Layout> {
        let layout = Layout { base };
        for name in [
            "engine",
            "containers",
            "images",
            "scratch",
            "volumes",
            "etc",
        ] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(layout.base.join(name))?;
        }
        // Volumes keep the modes that they are given; nobody but root passes through here.
        std::fs::set_permissions(&layout.base, std::fs::Permissions::from_mode(0o711))?;
        Ok(layout)
    }

    /// libcontainer's state directory.
    pub fn engine(&self) -> PathBuf {
        self.base.join("engine")
    }

    /// Everything of one container but its layer.
    pub fn container(&self, id: &str) -> PathBuf {
        self.base.join("containers").join(id)
    }

    /// Mount point of an image.
    pub fn image(&self, disk: &str) -> PathBuf {
        self.base.join("images").join(disk)
    }

    /// Mount point of the scratch filesystem.
    pub fn scratch(&self) -> PathBuf {
        self.base.join("scratch")
    }

    /// A container's writable layer.
    pub fn layer(&self, id: &str) -> PathBuf {
        self.scratch().join("layers").join(id)
    }

    /// An emptyDir on the scratch filesystem.
    pub fn scratch_volume(&self, name: &str) -> PathBuf {
        self.scratch().join("volumes").join(name)
    }

    /// A volume of files or in memory.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.base.join("volumes").join(name)
    }

    /// Mount point of the host's directories.
    pub fn shares(&self) -> PathBuf {
        self.base.join("shares")
    }

    /// The sandbox's hosts, hostname or resolv.conf.
    pub fn etc(&self, name: &str) -> PathBuf {
        self.base.join("etc").join(name)
    }

    /// The containers' /dev/shm.
    pub fn shm(&self) -> PathBuf {
        self.base.join("shm")
    }

    /// BASE.
    pub fn base(&self) -> &Path {
        &self.base
    }
}
