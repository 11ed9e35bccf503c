//! Names in directories.

use std::ffi::{CStr, CString};
use std::io;
use std::sync::Arc;

use fuse_backend_rs::api::filesystem::{Context, Entry};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::ShareFs;
use crate::node::{Node, ROOT};
use crate::system::{Descriptors, as_user, attributes, open_beneath};

/// Permission bits with set-user-id, set-group-id and sticky.
const MODE_BITS: u32 = 0o7777;

/// Refuses what is not the name of one entry: a path, `.`, `..`.
pub(super) fn check(name: &CStr) -> io::Result<()> {
    match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL.into()),
        _ => Ok(()),
    }
}

impl ShareFs {
    pub(super) fn look_up(&self, parent: u64, name: &CStr) -> io::Result<Entry> {
        check(name)?;
        if parent == ROOT {
            return self.look_up_share(name);
        }
        let directory = self.nodes.get(parent)?;
        let path = open_beneath(&directory.path, name, OFlags::PATH, 0)?;
        let found = attributes(&path)?;
        let crosses = found.identity.mount != directory.identity.mount;
        let node = self.nodes.remember(path, &found, &directory.share);
        Ok(self.entry(&node, &found, crosses))
    }

    fn look_up_share(&self, name: &CStr) -> io::Result<Entry> {
        let share = self.shares.find(name).ok_or(Errno::NOENT)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = rustix::fs::openat(&share.root, c".", flags, Mode::empty())?;
        let found = attributes(&path)?;
        let node = self.nodes.remember(path, &found, &share);
        Ok(self.entry(&node, &found, true))
    }

    /// A directory in which something is to be made or removed.
    pub(super) fn changing(&self, parent: u64, name: &CStr) -> io::Result<Arc<Node>> {
        check(name)?;
        if parent == ROOT {
            return Err(Errno::ROFS.into());
        }
        let directory = self.nodes.get(parent)?;
        directory.writable()?;
        Ok(directory)
    }

    pub(super) fn make_directory(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
    ) -> io::Result<Entry> {
        let directory = self.changing(parent, name)?;
        let mode = Mode::from_raw_mode(mode & MODE_BITS);
        as_user(context.uid, context.gid, || {
            Ok(rustix::fs::mkdirat(&directory.path, name, mode)?)
        })?;
        self.look_up(parent, name)
    }

    /// Regular files, pipes and sockets; device nodes would be the host's.
    pub(super) fn make_node(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        rdev: u32,
    ) -> io::Result<Entry> {
        let directory = self.changing(parent, name)?;
        let kind = FileType::from_raw_mode(mode);
        // Overlay file systems mark removed names by character device 0:0.
        let whiteout = kind == FileType::CharacterDevice && rdev == 0;
        if !whiteout
            && !matches!(
                kind,
                FileType::RegularFile | FileType::Fifo | FileType::Socket
            )
        {
            return Err(Errno::PERM.into());
        }
        let bits = Mode::from_raw_mode(mode & MODE_BITS);
        as_user(context.uid, context.gid, || {
            Ok(rustix::fs::mknodat(&directory.path, name, kind, bits, 0)?)
        })?;
        self.look_up(parent, name)
    }

    pub(super) fn make_symlink(
        &self,
        context: &Context,
        target: &CStr,
        parent: u64,
        name: &CStr,
    ) -> io::Result<Entry> {
        let directory = self.changing(parent, name)?;
        as_user(context.uid, context.gid, || {
            Ok(rustix::fs::symlinkat(target, &directory.path, name)?)
        })?;
        self.look_up(parent, name)
    }

    pub(super) fn read_link(&self, inode: u64) -> io::Result<Vec<u8>> {
        let node = self.nodes.get(inode)?;
        let target: CString = rustix::fs::readlinkat(&node.path, c"", Vec::new())?;
        Ok(target.into_bytes())
    }

    pub(super) fn make_link(&self, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        let directory = self.changing(parent, name)?;
        let node = self.nodes.get(inode)?;
        node.writable()?;
        // Through /proc, since AT_EMPTY_PATH needs a capability on the whole host.
        rustix::fs::linkat(
            self.descriptors.directory(),
            Descriptors::name(&node.path),
            &directory.path,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )?;
        self.look_up(parent, name)
    }

    pub(super) fn remove(&self, parent: u64, name: &CStr, directory: bool) -> io::Result<()> {
        let parent = self.changing(parent, name)?;
        let flags = if directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        Ok(rustix::fs::unlinkat(&parent.path, name, flags)?)
    }

    pub(super) fn move_name(
        &self,
        (old_parent, old_name): (u64, &CStr),
        (new_parent, new_name): (u64, &CStr),
        flags: u32,
    ) -> io::Result<()> {
        let from = self.changing(old_parent, old_name)?;
        let to = self.changing(new_parent, new_name)?;
        if !Arc::ptr_eq(&from.share, &to.share) {
            return Err(Errno::XDEV.into());
        }
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        Ok(rustix::fs::renameat_with(
            &from.path, old_name, &to.path, new_name, flags,
        )?)
    }
}
