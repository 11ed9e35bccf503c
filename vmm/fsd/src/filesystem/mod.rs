//! What FUSE asks (linux/fuse.h), done below the shares. A file per kind of request:
//!
//! * `names`: lookup, make, rename, link, remove
//! * `attributes`: stat, chmod, chown, truncate, times, statfs
//! * `files`: open, create, read, write, sync, allocate
//! * `temporary`: O_TMPFILE
//! * `directories`: list
//! * `xattr`: extended attributes
//!
//! Who may do what is decided by the guest's kernel (the mount has `default_permissions`);
//! the server only keeps the guest inside the shares and gives what is made to its maker.

mod attributes;
mod directories;
mod files;
mod names;
mod temporary;
#[cfg(test)]
mod tests;
mod xattr;

use std::ffi::CStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{CreateIn, stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    SetattrValid, ZeroCopyReader, ZeroCopyWriter,
};

use crate::handle::Handles;
use crate::metrics::Metrics;
use crate::node::{Node, Nodes};
use crate::share::{ShareError, Shares};
use crate::system::{Attributes, Descriptors};

/// How long the guest may believe names and attributes: others change the host's files too.
const CACHE_TIMEOUT: Duration = Duration::from_secs(1);
/// FUSE_ATTR_SUBMOUNT: the guest gives this directory a device number of its own.
const ATTR_SUBMOUNT: u32 = 1;

/// The file system of one pod.
pub struct ShareFs {
    /// What the guest may see.
    pub shares: Shares,
    /// What it did.
    pub metrics: Arc<Metrics>,
    nodes: Nodes,
    handles: Handles,
    descriptors: Descriptors,
    submounts: AtomicBool,
}

impl ShareFs {
    /// Without shares.
    pub fn new(descriptors: Descriptors) -> Self {
        Self {
            shares: Shares::default(),
            metrics: Arc::default(),
            nodes: Nodes::default(),
            handles: Handles::default(),
            descriptors,
            submounts: AtomicBool::new(false),
        }
    }

    /// Takes a share away, and closes what the guest had open there.
    pub fn remove_share(&self, name: &str) -> Result<(), ShareError> {
        let share = self.shares.remove(name)?;
        self.handles.drop_revoked();
        self.nodes.drop_revoked();
        drop(share);
        Ok(())
    }

    /// Files that the guest knows.
    pub fn known_files(&self) -> usize {
        self.nodes.len()
    }

    /// Files that the guest has open.
    pub fn open_files(&self) -> usize {
        self.handles.len()
    }

    /// What a lookup answers.
    fn entry(&self, node: &Node, attributes: &Attributes, crosses_mount: bool) -> Entry {
        let submount =
            crosses_mount && node.is_directory() && self.submounts.load(Ordering::Relaxed);
        Entry {
            inode: node.id,
            generation: 0,
            attr: attributes.stat,
            attr_flags: if submount { ATTR_SUBMOUNT } else { 0 },
            attr_timeout: CACHE_TIMEOUT,
            entry_timeout: CACHE_TIMEOUT,
        }
    }

    fn clear(&self) {
        self.handles.clear();
        self.nodes.clear();
    }
}

impl FileSystem for ShareFs {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.clear();
        let wanted = FsOptions::ASYNC_READ
            | FsOptions::ATOMIC_O_TRUNC
            | FsOptions::BIG_WRITES
            | FsOptions::AUTO_INVAL_DATA
            | FsOptions::DO_READDIRPLUS
            | FsOptions::READDIRPLUS_AUTO
            | FsOptions::ASYNC_DIO
            | FsOptions::PARALLEL_DIROPS
            | FsOptions::MAX_PAGES
            | FsOptions::SUBMOUNTS
            | FsOptions::HANDLE_KILLPRIV_V2
            | FsOptions::INIT_EXT;
        self.submounts
            .store(capable.contains(FsOptions::SUBMOUNTS), Ordering::Relaxed);
        Ok(wanted)
    }

    fn destroy(&self) {
        self.clear();
    }

    fn lookup(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.look_up(parent, name)
    }

    fn forget(&self, _: &Context, inode: u64, count: u64) {
        self.nodes.forget(inode, count);
    }

    fn getattr(
        &self,
        _: &Context,
        inode: u64,
        _handle: Option<u64>,
    ) -> io::Result<(stat64, Duration)> {
        Ok((self.get_attributes(inode)?, CACHE_TIMEOUT))
    }

    fn setattr(
        &self,
        _: &Context,
        inode: u64,
        wanted: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        self.set_attributes(inode, &wanted, handle, valid)?;
        Ok((self.get_attributes(inode)?, CACHE_TIMEOUT))
    }

    fn readlink(&self, _: &Context, inode: u64) -> io::Result<Vec<u8>> {
        self.read_link(inode)
    }

    fn symlink(
        &self,
        context: &Context,
        target: &CStr,
        parent: u64,
        name: &CStr,
    ) -> io::Result<Entry> {
        self.make_symlink(context, target, parent, name)
    }

    fn mknod(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        rdev: u32,
        _umask: u32,
    ) -> io::Result<Entry> {
        self.make_node(context, parent, name, mode, rdev)
    }

    fn mkdir(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        _umask: u32,
    ) -> io::Result<Entry> {
        self.make_directory(context, parent, name, mode)
    }

    fn unlink(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.remove(parent, name, false)
    }

    fn rmdir(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.remove(parent, name, true)
    }

    fn rename(
        &self,
        _: &Context,
        old_parent: u64,
        old_name: &CStr,
        new_parent: u64,
        new_name: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        self.move_name((old_parent, old_name), (new_parent, new_name), flags)
    }

    fn link(&self, _: &Context, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.make_link(inode, parent, name)
    }

    fn open(
        &self,
        _: &Context,
        inode: u64,
        flags: u32,
        fuse_flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        let handle = self.open_file(inode, flags, fuse_flags)?;
        Ok((Some(handle), OpenOptions::empty(), None))
    }

    fn create(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        args: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        let (entry, handle) = self.create_file(context, parent, name, &args)?;
        Ok((entry, Some(handle), OpenOptions::empty(), None))
    }

    fn read(
        &self,
        _: &Context,
        _inode: u64,
        handle: u64,
        writer: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        _lock_owner: Option<u64>,
        _flags: u32,
    ) -> io::Result<usize> {
        self.read_file(handle, writer, size, offset)
    }

    fn write(
        &self,
        _: &Context,
        _inode: u64,
        handle: u64,
        reader: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        _lock_owner: Option<u64>,
        _delayed_write: bool,
        _flags: u32,
        fuse_flags: u32,
    ) -> io::Result<usize> {
        self.write_file(handle, reader, size, offset, fuse_flags)
    }

    fn flush(&self, _: &Context, _inode: u64, handle: u64, _lock_owner: u64) -> io::Result<()> {
        self.flush_file(handle)
    }

    fn fsync(&self, _: &Context, _inode: u64, data_only: bool, handle: u64) -> io::Result<()> {
        self.sync_file(handle, data_only)
    }

    fn fallocate(
        &self,
        _: &Context,
        _inode: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.allocate(handle, mode, offset, length)
    }

    fn release(
        &self,
        _: &Context,
        _inode: u64,
        _flags: u32,
        handle: u64,
        _flush: bool,
        _flock_release: bool,
        _lock_owner: Option<u64>,
    ) -> io::Result<()> {
        self.handles.remove(handle);
        Ok(())
    }

    fn statfs(&self, _: &Context, inode: u64) -> io::Result<statvfs64> {
        self.space(inode)
    }

    fn setxattr(
        &self,
        _: &Context,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> io::Result<()> {
        self.set_xattr(inode, name, value, flags)
    }

    fn getxattr(
        &self,
        _: &Context,
        inode: u64,
        name: &CStr,
        size: u32,
    ) -> io::Result<GetxattrReply> {
        self.get_xattr(inode, name, size)
    }

    fn listxattr(&self, _: &Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        self.list_xattr(inode, size)
    }

    fn removexattr(&self, _: &Context, inode: u64, name: &CStr) -> io::Result<()> {
        self.remove_xattr(inode, name)
    }

    fn opendir(
        &self,
        _: &Context,
        inode: u64,
        _flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions)> {
        Ok((Some(self.open_directory(inode)?), OpenOptions::empty()))
    }

    fn readdir(
        &self,
        _: &Context,
        _inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.list(handle, size, offset, add)
    }

    fn readdirplus(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.list_with_entries(inode, handle, size, offset, add)
    }

    fn fsyncdir(&self, _: &Context, _inode: u64, data_only: bool, handle: u64) -> io::Result<()> {
        self.sync_file(handle, data_only)
    }

    fn releasedir(&self, _: &Context, _inode: u64, _flags: u32, handle: u64) -> io::Result<()> {
        self.handles.remove(handle);
        Ok(())
    }

    fn lseek(
        &self,
        _: &Context,
        _inode: u64,
        handle: u64,
        offset: u64,
        whence: u32,
    ) -> io::Result<u64> {
        self.seek(handle, offset, whence)
    }
}
