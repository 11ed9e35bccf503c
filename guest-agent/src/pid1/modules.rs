//! Loads the kernel modules that the initramfs lists, one path a line in load order.
//! A kernel with everything built in comes without the list.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// The list in the initramfs.
pub const LIST: &str = "/etc/hull/modules";

/// A module that the guest cannot do without.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The list is there and cannot be read.
    #[error("cannot read {LIST}: {0}")]
    List(io::Error),
    /// The kernel refused a module.
    #[error("cannot load kernel module {path}: {source}")]
    Load {
        /// The module's file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Loads the modules of `list`. Loaded or built-in ones are fine.
pub fn load(list: &Path) -> Result<(), ModuleError> {
    let text = match std::fs::read_to_string(list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(ModuleError::List)?,
    };
    for path in paths(&text) {
        match load_one(path) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(source) => {
                return Err(ModuleError::Load {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
    Ok(())
}

fn load_one(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: the descriptor is open and the empty parameter string is static.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    Errno::result(result)?;
    Ok(())
}

fn paths(text: &str) -> impl Iterator<Item = &Path> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_list_means_nothing_to_load() {
        load(Path::new("/nonexistent/modules")).unwrap();
    }

    #[test]
    fn missing_module_is_named() {
        let list = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(list.path(), "# virtio\n\n/nonexistent/virtio.ko\n").unwrap();
        let error = load(list.path()).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/virtio.ko"), "{error}");
    }
}
