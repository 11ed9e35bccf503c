//! Turns a path of the host into what hull-fsd takes as a share: a detached mount.
//!
//! A detached mount has nothing above its root, keeps what it shows whatever happens to the
//! path, and carries its own flags: read-only, and no device nodes.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the only entry in the directory of a single file's share.
pub const FILE_NAME: &str = "file";
/// [`FILE_NAME`] for system calls.
const FILE_C_NAME: &CStr = c"file";
/// A directory that every host has; covered in a mount namespace of a thread only.
const MOUNT_POINT: &CStr = c"/proc";
/// linux/mount.h
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// How much of a share the guest may not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    ReadWrite,
    /// The share itself; file systems mounted in it stay as they are.
    ReadOnly,
    /// All of it.
    RecursiveReadOnly,
}

/// What happens when the host mounts something in a share later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// The guest does not see it.
    Private,
    /// The guest sees it.
    FromHost,
}

/// A path cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// It cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a socket, a pipe or a device.
    #[error("{path} is a {kind}, which a virtual machine cannot share with its host")]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A mount operation failed.
    #[error("cannot {doing} of {path}: {source}")]
    Mount {
        /// The path.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What hull-fsd is given.
#[derive(Debug)]
pub struct Detached {
    /// The root of the mount, a directory.
    pub root: OwnedFd,
    /// What was shared is a single file, [`FILE_NAME`] in that directory.
    pub is_file: bool,
}

/// Detaches `path`, with everything that is mounted in it. Symbolic links are followed.
pub fn detach(
    path: &Path,
    access: Access,
    propagation: Propagation,
) -> Result<Detached, ShareError> {
    let failed = |doing| {
        move |source| ShareError::Mount {
            path: path.to_owned(),
            doing,
            source,
        }
    };
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
        .map_err(|source| ShareError::Open {
            path: path.to_owned(),
            source,
        })?;
    let kind = file
        .metadata()
        .map_err(failed("read the attributes"))?
        .file_type();
    let other = [
        (kind.is_socket(), "socket"),
        (kind.is_fifo(), "pipe"),
        (kind.is_block_device(), "block device"),
        (kind.is_char_device(), "character device"),
    ];
    if let Some((_, kind)) = other.into_iter().find(|(is, _)| *is) {
        let path = path.to_owned();
        return Err(ShareError::Kind { path, kind });
    }
    let tree = open_tree(file.as_raw_fd()).map_err(failed("make a detached mount"))?;
    set_attributes(&tree, access, propagation).map_err(failed("set the mount flags"))?;
    if kind.is_dir() {
        return Ok(Detached {
            root: tree,
            is_file: false,
        });
    }
    let thread = std::thread::Builder::new()
        .name("share-file".to_owned())
        .spawn(move || in_directory(&tree))
        .map_err(failed("start a thread for the mount"))?;
    let root = thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        .map_err(failed("make a directory for the mount"))?;
    Ok(Detached {
        root,
        is_file: true,
    })
}

fn check(outcome: libc::c_long) -> io::Result<libc::c_long> {
    if outcome < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(outcome)
    }
}

fn open_tree(file: RawFd) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | (libc::AT_RECURSIVE | libc::AT_EMPTY_PATH) as libc::c_uint;
    // SAFETY: the path is a C string; the result is checked, and owned by nothing else.
    unsafe {
        let tree = libc::syscall(libc::SYS_open_tree, file, c"".as_ptr(), flags);
        Ok(OwnedFd::from_raw_fd(check(tree)? as RawFd))
    }
}

fn set_attributes(tree: &OwnedFd, access: Access, propagation: Propagation) -> io::Result<()> {
    let set = |set: u64, propagation: u64, recursive: bool| {
        let attributes = libc::mount_attr {
            attr_set: set,
            attr_clr: 0,
            propagation,
            userns_fd: 0,
        };
        let flags = if recursive {
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE
        } else {
            libc::AT_EMPTY_PATH
        };
        // SAFETY: path and structure outlive the call.
        let outcome = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                tree.as_raw_fd(),
                c"".as_ptr(),
                flags,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        check(outcome).map(drop)
    };
    let propagation = match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::FromHost => libc::MS_SLAVE,
    };
    let always = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID;
    set(always, propagation, true)?;
    match access {
        Access::ReadWrite => Ok(()),
        Access::ReadOnly => set(libc::MOUNT_ATTR_RDONLY, 0, false),
        Access::RecursiveReadOnly => set(libc::MOUNT_ATTR_RDONLY, 0, true),
    }
}

/// Puts the mount of a file into an otherwise empty, read-only directory. The calling thread
/// is left in a mount namespace of its own.
fn in_directory(file: &OwnedFd) -> io::Result<OwnedFd> {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: plain system calls; every string is a C string that outlives its call, and
    // results are checked.
    unsafe {
        check(libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS).into())?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()).into())?;
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let kind = c"tmpfs".as_ptr();
        let options = c"size=4k,mode=555".as_ptr().cast();
        let target = MOUNT_POINT.as_ptr();
        check(libc::mount(kind, target, kind, flags, options).into())?;
        let directory = libc::open(target, libc::O_PATH | libc::O_CLOEXEC | libc::O_DIRECTORY);
        let directory = OwnedFd::from_raw_fd(check(directory.into())? as RawFd);
        let name = FILE_C_NAME.as_ptr();
        let mode = libc::S_IFREG | 0o444;
        check(libc::mknodat(directory.as_raw_fd(), name, mode, 0).into())?;
        check(libc::syscall(
            libc::SYS_move_mount,
            file.as_raw_fd(),
            c"".as_ptr(),
            directory.as_raw_fd(),
            name,
            MOVE_MOUNT_F_EMPTY_PATH,
        ))?;
        let tree = open_tree(directory.as_raw_fd())?;
        set_attributes(&tree, Access::ReadOnly, Propagation::Private)?;
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn directory() -> PathBuf {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("hull-share-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// Opens below a share; gives the error number of a failure.
    fn open_in(root: &OwnedFd, path: &CStr, flags: i32) -> Result<OwnedFd, i32> {
        // SAFETY: the result is checked, and owned by nothing else.
        unsafe {
            let fd = libc::openat(root.as_raw_fd(), path.as_ptr(), flags, 0o644);
            match fd {
                -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
                fd => Ok(OwnedFd::from_raw_fd(fd)),
            }
        }
    }

    #[test]
    fn nothing_is_above_the_root_of_a_share() {
        let path = directory();
        std::fs::write(path.join("inside"), "x").unwrap();
        let share = detach(&path, Access::ReadWrite, Propagation::Private).unwrap();
        assert!(!share.is_file);
        for climb in [c"../inside", c"../../../../inside"] {
            assert!(open_in(&share.root, climb, libc::O_RDONLY).is_ok());
        }
        assert_eq!(
            open_in(&share.root, c"../etc", libc::O_PATH).err(),
            Some(libc::ENOENT)
        );
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_read_only_share_is_so_in_the_kernel_and_the_path_is_not() {
        let path = directory();
        for access in [Access::ReadOnly, Access::RecursiveReadOnly] {
            let share = detach(&path, access, Propagation::Private).unwrap();
            let made = open_in(&share.root, c"new", libc::O_CREAT | libc::O_WRONLY);
            assert_eq!(made.err(), Some(libc::EROFS));
        }
        std::fs::write(path.join("new"), "x").unwrap();
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn device_nodes_in_a_share_cannot_be_opened() {
        let path = directory();
        let node = std::ffi::CString::new(path.join("null").to_str().unwrap()).unwrap();
        // SAFETY: plain system call.
        let made =
            unsafe { libc::mknod(node.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3)) };
        assert_eq!(made, 0);
        let share = detach(&path, Access::ReadWrite, Propagation::Private).unwrap();
        let opened = open_in(&share.root, c"null", libc::O_RDONLY);
        assert_eq!(opened.err(), Some(libc::EACCES));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_file_comes_alone() {
        let path = directory();
        std::fs::write(path.join("one"), "x").unwrap();
        std::fs::write(path.join("two"), "y").unwrap();
        symlink(path.join("one"), path.join("link")).unwrap();
        let share = detach(&path.join("link"), Access::ReadWrite, Propagation::Private).unwrap();
        assert!(share.is_file);
        assert!(open_in(&share.root, FILE_C_NAME, libc::O_RDWR).is_ok());
        for hidden in [c"one", c"two", c"../two"] {
            assert!(open_in(&share.root, hidden, libc::O_PATH).is_err());
        }
        let beside = open_in(&share.root, c"new", libc::O_CREAT | libc::O_WRONLY);
        assert_eq!(beside.err(), Some(libc::EROFS));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn sockets_and_devices_are_refused_by_kind() {
        let path = directory();
        let _listener = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
        for (path, kind) in [
            (path.join("socket"), "socket"),
            (PathBuf::from("/dev/null"), "character device"),
        ] {
            let error = detach(&path, Access::ReadWrite, Propagation::Private).unwrap_err();
            assert!(error.to_string().contains(kind), "{error}");
        }
        std::fs::remove_dir_all(path).unwrap();
    }
}
