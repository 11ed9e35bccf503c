//! How much a directory tree occupies. The tree may be changed by a container at the
//! same time, so each directory is opened from its parent and no symlink is followed.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::resolve;

/// Bytes of a block in stat(2).
const BLOCK_BYTES: u64 = 512;
/// Directories deeper than this are not counted: each level holds a descriptor.
const MAX_DEPTH: usize = 128;

/// What a tree occupies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// What is below `path`, hard links counted once. Nothing if it does not exist.
///
/// # Errors
/// From reading directories.
pub fn of_tree(path: &Path) -> io::Result<DiskUsage> {
    let root = match resolve::root(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DiskUsage::default()),
        other => other?,
    };
    let mut seen = HashSet::new();
    of_directory(open_directory(&root, Path::new("."))?, &mut seen, 0)
}

fn open_directory(parent: &OwnedFd, name: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn of_directory(
    directory: OwnedFd,
    seen: &mut HashSet<(u64, u64)>,
    depth: usize,
) -> io::Result<DiskUsage> {
    let mut usage = DiskUsage::default();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Deleted meanwhile.
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        usage.inodes += 1;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && depth < MAX_DEPTH {
            let name = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
            match open_directory(&directory, name) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                child => {
                    let below = of_directory(child?, seen, depth + 1)?;
                    usage.bytes += below.bytes;
                    usage.inodes += below.inodes;
                }
            }
        }
    }
    Ok(usage)
}

use std::os::unix::ffi::OsStrExt;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once_and_symlinks_lead_nowhere() {
        let tree = tempfile::tempdir().unwrap();
        let path = |name: &str| tree.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("d/a"), vec![1; 64 * 1024]).unwrap();
        let once = of_tree(tree.path()).unwrap();
        assert!(once.bytes >= 64 * 1024 && once.inodes == 2, "{once:?}");
        std::fs::hard_link(path("d/a"), path("b")).unwrap();
        std::os::unix::fs::symlink("/usr", path("usr")).unwrap();
        let again = of_tree(tree.path()).unwrap();
        assert!(again.bytes < once.bytes + 64 * 1024, "{again:?}");
        assert_eq!(again.inodes, 3);
    }

    #[test]
    fn missing_tree_is_empty() {
        assert_eq!(
            of_tree(Path::new("/nonexistent")).unwrap(),
            DiskUsage::default()
        );
    }
}
