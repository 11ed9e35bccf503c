//! Paths below directories that containers can write to. The kernel resolves them
//! (openat2(2)), so that a symlink planted or swapped in a container leads nowhere
//! but into the same tree.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

/// How often an openat2 that raced with a rename is repeated.
const RACE_RETRIES: usize = 32;

/// Opens a directory of the agent's own as the root of resolutions.
///
/// # Errors
/// From open(2).
pub fn root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Opens `path` with `root` as the root directory of all symlinks and `..`.
///
/// # Errors
/// From openat2(2).
pub fn open_in_root(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open(
        root.as_fd(),
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path` below `root` and follows no symlink at all.
///
/// # Errors
/// From openat2(2).
pub fn open_beneath(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open(
        root.as_fd(),
        path,
        flags,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
}

fn open(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let mode = match flags.contains(OFlags::CREATE) {
        true => Mode::from_raw_mode(0o600),
        false => Mode::empty(),
    };
    for _ in 0..RACE_RETRIES {
        match openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Reads a regular file of at most `limit` bytes inside `root`; longer ones are cut.
///
/// # Errors
/// From opening and reading; `InvalidInput` if it is no regular file.
pub fn read_in_root(root: impl AsFd, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // NONBLOCK: a FIFO in the file's place must not stop the agent.
    let fd = open_in_root(root, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

/// Makes the directories of `path` below `root`, following no symlink, and opens the last.
///
/// # Errors
/// From mkdirat(2) and openat2(2).
pub fn make_directories(root: impl AsFd, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = openat(root.as_fd(), ".", flags, Mode::empty())?;
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        match mkdirat(&directory, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        directory = openat(&directory, name, flags, Mode::empty())?;
    }
    Ok(directory)
}

/// A path to the opened file itself, valid in this process while `fd` is open.
pub fn fd_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Checks that `path` is relative, not empty and has no `..`: what a host may name
/// inside a volume.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\0')
        && Path::new(path)
            .components()
            .all(|component| matches!(component, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn planted_symlink_stays_inside_the_root() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "host").unwrap();
        let tree = tempfile::tempdir().unwrap();
        symlink(outside.path(), tree.path().join("absolute")).unwrap();
        symlink("../../../../../../etc", tree.path().join("climbing")).unwrap();
        let root = root(tree.path()).unwrap();
        for path in [
            "absolute/secret",
            "climbing/passwd",
            "../etc/passwd",
            "/etc/passwd",
        ] {
            let error = read_in_root(&root, Path::new(path), 100).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
        }
    }

    #[test]
    fn absolute_symlink_is_resolved_as_the_container_sees_it() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("usr")).unwrap();
        std::fs::write(tree.path().join("usr/file"), "inside").unwrap();
        symlink("/usr/file", tree.path().join("link")).unwrap();
        let root = root(tree.path()).unwrap();
        assert_eq!(read_in_root(&root, Path::new("/link"), 3).unwrap(), b"ins");
    }

    #[test]
    fn fifo_does_not_block() {
        let tree = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&tree.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = root(tree.path()).unwrap();
        let error = read_in_root(&root, Path::new("fifo"), 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn directories_are_not_made_through_symlinks() {
        let outside = tempfile::tempdir().unwrap();
        let tree = tempfile::tempdir().unwrap();
        symlink(outside.path(), tree.path().join("a")).unwrap();
        let root = root(tree.path()).unwrap();
        assert!(make_directories(&root, Path::new("a/b"), 0o755).is_err());
        assert!(make_directories(&root, Path::new("c/d"), 0o755).is_ok());
        assert!(!outside.path().join("b").exists() && tree.path().join("c/d").is_dir());
    }

    #[test]
    fn paths_that_leave_the_volume_are_recognised() {
        for path in ["", "/etc", "..", "a/../../b", "a/..", "./a", "a\0b"] {
            assert!(!is_inside(path), "{path:?}");
        }
        assert!(is_inside("a") && is_inside("a/b.c/..d"));
    }
}
