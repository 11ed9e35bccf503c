//! Attributes of files and of file systems.

use std::io;
use std::os::fd::AsFd;

use fuse_backend_rs::abi::fuse_abi::{stat64, statvfs64};
use fuse_backend_rs::api::filesystem::SetattrValid;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::ShareFs;
use crate::node::{Node, ROOT};
use crate::system::{Descriptors, attributes, dropping_privileges};

/// Mode of the root directory, which holds the shares.
const ROOT_MODE: u32 = libc::S_IFDIR | 0o555;
const NAME_MAX_BYTES: u64 = 255;
const ROOT_BLOCK_BYTES: u64 = 4096;
const MODE_BITS: u32 = 0o7777;

impl ShareFs {
    pub(super) fn get_attributes(&self, inode: u64) -> io::Result<stat64> {
        if inode == ROOT {
            return Ok(root_attributes());
        }
        let node = self.nodes.get(inode)?;
        Ok(attributes(&node.path)?.stat)
    }

    pub(super) fn set_attributes(
        &self,
        inode: u64,
        wanted: &stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<()> {
        if inode == ROOT {
            return Err(Errno::ROFS.into());
        }
        let node = self.nodes.get(inode)?;
        node.writable()?;
        if valid.contains(SetattrValid::MODE) {
            let mode = Mode::from_raw_mode(wanted.st_mode & MODE_BITS);
            let name = Descriptors::name(&node.path);
            rustix::fs::chmodat(self.descriptors.directory(), name, mode, AtFlags::empty())?;
        }
        if valid.intersects(SetattrValid::UID | SetattrValid::GID) {
            let uid = valid.contains(SetattrValid::UID).then_some(wanted.st_uid);
            let gid = valid.contains(SetattrValid::GID).then_some(wanted.st_gid);
            change_owner(&node, uid, gid)?;
        }
        if valid.contains(SetattrValid::SIZE) {
            let size = u64::try_from(wanted.st_size).map_err(|_| Errno::INVAL)?;
            let kill = valid.contains(SetattrValid::KILL_SUIDGID);
            self.set_size(&node, handle, size, kill)?;
        }
        if valid.intersects(SetattrValid::ATIME | SetattrValid::MTIME) {
            self.set_times(&node, wanted, valid)?;
        }
        Ok(())
    }

    fn set_size(&self, node: &Node, handle: Option<u64>, size: u64, kill: bool) -> io::Result<()> {
        let change = || match handle {
            Some(handle) => self
                .handles
                .with(handle, |_, file| Ok(rustix::fs::ftruncate(file, size)?)),
            None => {
                let file = self.open_regular(node, OFlags::WRONLY)?;
                Ok(rustix::fs::ftruncate(file, size)?)
            }
        };
        if kill {
            dropping_privileges(change)
        } else {
            change()
        }
    }

    fn set_times(&self, node: &Node, wanted: &stat64, valid: SetattrValid) -> io::Result<()> {
        let time = |set, now, seconds, nanoseconds| Timespec {
            tv_sec: seconds,
            tv_nsec: match (valid.contains(set), valid.contains(now)) {
                (false, _) => UTIME_OMIT,
                (true, true) => UTIME_NOW,
                (true, false) => nanoseconds,
            },
        };
        let times = Timestamps {
            last_access: time(
                SetattrValid::ATIME,
                SetattrValid::ATIME_NOW,
                wanted.st_atime,
                wanted.st_atime_nsec,
            ),
            last_modification: time(
                SetattrValid::MTIME,
                SetattrValid::MTIME_NOW,
                wanted.st_mtime,
                wanted.st_mtime_nsec,
            ),
        };
        let name = Descriptors::name(&node.path);
        Ok(rustix::fs::utimensat(
            self.descriptors.directory(),
            name,
            &times,
            AtFlags::empty(),
        )?)
    }

    pub(super) fn space(&self, inode: u64) -> io::Result<statvfs64> {
        // SAFETY: all-zero bytes are a valid statvfs64.
        let mut space: statvfs64 = unsafe { std::mem::zeroed() };
        space.f_namemax = NAME_MAX_BYTES;
        if inode == ROOT {
            space.f_bsize = ROOT_BLOCK_BYTES;
            space.f_frsize = ROOT_BLOCK_BYTES;
            return Ok(space);
        }
        let node = self.nodes.get(inode)?;
        let found = rustix::fs::fstatvfs(node.path.as_fd())?;
        space.f_bsize = found.f_bsize;
        space.f_frsize = found.f_frsize;
        space.f_blocks = found.f_blocks;
        space.f_bfree = found.f_bfree;
        space.f_bavail = found.f_bavail;
        space.f_files = found.f_files;
        space.f_ffree = found.f_ffree;
        space.f_favail = found.f_favail;
        space.f_namemax = found.f_namemax;
        Ok(space)
    }
}

fn change_owner(node: &Node, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::INVAL.into());
    }
    Ok(rustix::fs::chownat(
        &node.path,
        c"",
        uid.map(Uid::from_raw),
        gid.map(Gid::from_raw),
        AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn root_attributes() -> stat64 {
    // SAFETY: all-zero bytes are a valid stat64.
    let mut stat: stat64 = unsafe { std::mem::zeroed() };
    stat.st_ino = ROOT;
    stat.st_mode = ROOT_MODE;
    stat.st_nlink = 2;
    stat.st_blksize = ROOT_BLOCK_BYTES as i64;
    stat
}
