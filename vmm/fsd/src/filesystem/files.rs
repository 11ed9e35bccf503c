//! Contents of regular files.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use fuse_backend_rs::abi::fuse_abi::{CreateIn, WRITE_KILL_PRIV};
use fuse_backend_rs::api::filesystem::{Context, Entry, ZeroCopyReader, ZeroCopyWriter};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use super::ShareFs;
use crate::handle::Handle;
use crate::node::Node;
use crate::system::{as_user, attributes, dropping_privileges, open_beneath};

/// FUSE_OPEN_KILL_SUIDGID: the guest's process may not keep set-user-id bits (linux/fuse.h).
const OPEN_KILL_SUIDGID: u32 = 1;
const SET_ID_BITS: u32 = 0o6000;
const MODE_BITS: u32 = 0o7777;

/// What of the guest's open flags means something to the host.
fn host_flags(flags: u32) -> OFlags {
    let kept = OFlags::RWMODE | OFlags::APPEND | OFlags::TRUNC | OFlags::SYNC | OFlags::DSYNC;
    OFlags::from_bits_retain(flags) & kept
}

fn changes(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC)
}

impl ShareFs {
    /// Opens the file behind a node; only regular files are ever opened for their content.
    pub(super) fn open_regular(&self, node: &Node, flags: OFlags) -> io::Result<File> {
        match node.kind {
            libc::S_IFREG => {}
            libc::S_IFDIR => return Err(Errno::ISDIR.into()),
            libc::S_IFLNK => return Err(Errno::LOOP.into()),
            _ => return Err(Errno::ACCESS.into()),
        }
        if changes(flags) {
            node.writable()?;
        }
        self.descriptors.reopen(&node.path, flags)
    }

    pub(super) fn keep_open(&self, node: Arc<Node>, file: File) -> u64 {
        self.handles.insert(Handle::Opened {
            node,
            file: Mutex::new(file),
        })
    }

    pub(super) fn open_file(&self, inode: u64, flags: u32, fuse_flags: u32) -> io::Result<u64> {
        let node = self.nodes.get(inode)?;
        let flags = host_flags(flags);
        let open = || self.open_regular(&node, flags);
        let kill = fuse_flags & OPEN_KILL_SUIDGID != 0 && flags.contains(OFlags::TRUNC);
        let file = if kill {
            dropping_privileges(open)?
        } else {
            open()?
        };
        Ok(self.keep_open(node, file))
    }

    /// Makes a file and opens it; what is there already is opened unless O_EXCL is set.
    pub(super) fn create_file(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        args: &CreateIn,
    ) -> io::Result<(Entry, u64)> {
        let directory = self.changing(parent, name)?;
        let flags = host_flags(args.flags);
        let made = as_user(context.uid, context.gid, || {
            let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NONBLOCK;
            open_beneath(&directory.path, name, flags, args.mode & MODE_BITS)
        });
        match made {
            Ok(file) => {
                let entry = self.look_up(parent, name)?;
                let node = self.nodes.get(entry.inode)?;
                let opened = attributes(file.as_fd())?;
                // Between both calls somebody may have put another file there.
                let file = if opened.identity == node.identity {
                    File::from(file)
                } else {
                    self.reopen_or_forget(&node, flags)?
                };
                Ok((entry, self.keep_open(node, file)))
            }
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && !OFlags::from_bits_retain(args.flags).contains(OFlags::EXCL) =>
            {
                let entry = self.look_up(parent, name)?;
                let node = self.nodes.get(entry.inode)?;
                let file = self.reopen_or_forget(&node, flags)?;
                Ok((entry, self.keep_open(node, file)))
            }
            Err(error) => Err(error),
        }
    }

    /// A failed answer must not leave a counted lookup behind.
    fn reopen_or_forget(&self, node: &Node, flags: OFlags) -> io::Result<File> {
        self.open_regular(node, flags)
            .inspect_err(|_| self.nodes.forget(node.id, 1))
    }

    pub(super) fn read_file(
        &self,
        handle: u64,
        writer: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
    ) -> io::Result<usize> {
        let count = self.handles.with(handle, |_, file| {
            writer.write_from(file, size as usize, offset)
        })?;
        self.metrics.read_bytes.add(count as u64);
        Ok(count)
    }

    pub(super) fn write_file(
        &self,
        handle: u64,
        reader: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        fuse_flags: u32,
    ) -> io::Result<usize> {
        let count = self.handles.with(handle, |node, file| {
            let kill = fuse_flags & WRITE_KILL_PRIV != 0
                && attributes(&node.path)?.stat.st_mode & SET_ID_BITS != 0;
            if kill {
                dropping_privileges(|| reader.read_to(file, size as usize, offset))
            } else {
                reader.read_to(file, size as usize, offset)
            }
        })?;
        self.metrics.written_bytes.add(count as u64);
        Ok(count)
    }

    /// close(2) in the guest: a duplicate's close makes the host tell of delayed errors.
    pub(super) fn flush_file(&self, handle: u64) -> io::Result<()> {
        self.handles.with(handle, |_, file| {
            let twin = rustix::io::fcntl_dupfd_cloexec(&*file, 0)?;
            // SAFETY: the descriptor is owned here and is closed by this call alone.
            let closed = unsafe { libc::close(std::os::fd::IntoRawFd::into_raw_fd(twin)) };
            if closed < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        })
    }

    pub(super) fn sync_file(&self, handle: u64, data_only: bool) -> io::Result<()> {
        if let Handle::Root = &*self.handles.get(handle)? {
            return Ok(());
        }
        self.handles.with(handle, |_, file| {
            if data_only {
                file.sync_data()
            } else {
                file.sync_all()
            }
        })
    }

    pub(super) fn allocate(
        &self,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        self.handles.with(handle, |_, file| {
            Ok(rustix::fs::fallocate(file, mode, offset, length)?)
        })
    }

    pub(super) fn seek(&self, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        let target = match whence as i32 {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL.into()),
        };
        self.handles
            .with(handle, |_, file| Ok(rustix::fs::seek(file, target)?))
    }
}
