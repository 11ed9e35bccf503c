//! System calls as the file operations need them.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Statx, StatxFlags, Uid};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::node::Identity;

/// How often openat2 is repeated when a rename elsewhere makes it unsure (EAGAIN).
const BENEATH_ATTEMPTS: usize = 8;

/// What statx tells of a file.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// As stat(2).
    pub stat: libc::stat64,
    /// Which file it is.
    pub identity: Identity,
}

/// Looks at an open file; O_PATH does.
pub fn attributes(file: impl AsFd) -> io::Result<Attributes> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(file, c"", flags, mask)?;
    Ok(Attributes {
        stat: stat_of(&found),
        identity: Identity {
            mount: found.stx_mnt_id,
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
        },
    })
}

fn stat_of(found: &Statx) -> libc::stat64 {
    // SAFETY: all-zero bytes are a valid stat64.
    let mut stat: libc::stat64 = unsafe { std::mem::zeroed() };
    stat.st_dev = libc::makedev(found.stx_dev_major, found.stx_dev_minor);
    stat.st_ino = found.stx_ino;
    stat.st_nlink = u64::from(found.stx_nlink);
    stat.st_mode = u32::from(found.stx_mode);
    stat.st_uid = found.stx_uid;
    stat.st_gid = found.stx_gid;
    stat.st_rdev = guest_device(found.stx_rdev_major, found.stx_rdev_minor);
    stat.st_size = found.stx_size as i64;
    stat.st_blksize = i64::from(found.stx_blksize);
    stat.st_blocks = found.stx_blocks as i64;
    stat.st_atime = found.stx_atime.tv_sec;
    stat.st_atime_nsec = i64::from(found.stx_atime.tv_nsec);
    stat.st_mtime = found.stx_mtime.tv_sec;
    stat.st_mtime_nsec = i64::from(found.stx_mtime.tv_nsec);
    stat.st_ctime = found.stx_ctime.tv_sec;
    stat.st_ctime_nsec = i64::from(found.stx_ctime.tv_nsec);
    stat
}

/// FUSE carries device numbers in the kernel's 32 bit form (linux/kdev_t.h, new_encode_dev).
fn guest_device(major: u32, minor: u32) -> u64 {
    u64::from((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// Opens one name in a directory without following anything, and never above it.
pub fn open_beneath(
    directory: impl AsFd,
    name: &CStr,
    flags: OFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // NO_SYMLINKS refuses a link as last component even with O_PATH | O_NOFOLLOW.
    let resolve = if flags.contains(OFlags::PATH) {
        resolve - ResolveFlags::NO_SYMLINKS
    } else {
        resolve
    };
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode);
    for _ in 1..BENEATH_ATTEMPTS {
        match rustix::fs::openat2(directory.as_fd(), name, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Ok(rustix::fs::openat2(directory, name, flags, mode, resolve)?)
}

/// /proc/self/fd: the way from an O_PATH descriptor to an open file.
#[derive(Debug)]
pub struct Descriptors(OwnedFd);

impl Descriptors {
    /// Takes a descriptor of the directory.
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens the directory of this process.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open("/proc/self/fd", flags, Mode::empty())?;
        Ok(Self(directory))
    }

    /// The directory.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The name of a descriptor in it.
    pub fn name(file: impl AsFd) -> String {
        file.as_fd().as_raw_fd().to_string()
    }

    /// Opens the file behind an O_PATH descriptor. It must not be a symbolic link.
    pub fn reopen(&self, path: impl AsFd, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = rustix::fs::openat(&self.0, Self::name(path), flags, Mode::empty())?;
        Ok(File::from(opened))
    }
}

/// Runs `action` with user and group of the guest's process, so that what it makes belongs to
/// them. Capabilities stay as they are (SECBIT_NO_SETUID_FIXUP).
pub fn as_user<T>(uid: u32, gid: u32, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let own_uid = rustix::process::getuid();
    let own_gid = rustix::process::getgid();
    // Both mean "unchanged" to the kernel.
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::INVAL.into());
    }
    rustix::thread::set_thread_res_gid(own_gid, Gid::from_raw(gid), own_gid)?;
    let outcome = rustix::thread::set_thread_res_uid(own_uid, Uid::from_raw(uid), own_uid)
        .map_err(io::Error::from)
        .and_then(|()| action());
    let back = rustix::thread::set_thread_res_uid(own_uid, own_uid, own_uid)
        .and_then(|()| rustix::thread::set_thread_res_gid(own_gid, own_gid, own_gid));
    if let Err(error) = back {
        // Going on as somebody else would give files to the wrong owner.
        tracing::error!(%error, "Failed to return to the own user");
        std::process::abort();
    }
    outcome
}

/// Runs `action` without CAP_FSETID: the host's kernel then takes set-user-id and
/// set-group-id away as it does for an unprivileged process.
pub fn dropping_privileges<T>(action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = rustix::thread::capabilities(None)?;
    let mut without = before;
    without.effective -= CapabilitySet::FSETID;
    rustix::thread::set_capabilities(None, without)?;
    let outcome = action();
    rustix::thread::set_capabilities(None, before)?;
    outcome
}
