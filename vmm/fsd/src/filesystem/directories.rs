//! Listing directories.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::sync::PoisonError;

use fuse_backend_rs::api::filesystem::{DirEntry, Entry};
use rustix::fs::{FileType, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::ShareFs;
use crate::handle::Handle;
use crate::node::ROOT;

/// Entries are fetched in pieces of this size; a guest may ask for more, and asks again.
const BUFFER_BYTES: usize = 32 * 1024;

/// DT_* of a file type (readdir(3)).
fn entry_type(kind: FileType) -> u32 {
    u32::from(match kind {
        FileType::RegularFile => libc::DT_REG,
        FileType::Directory => libc::DT_DIR,
        FileType::Symlink => libc::DT_LNK,
        FileType::Fifo => libc::DT_FIFO,
        FileType::Socket => libc::DT_SOCK,
        FileType::CharacterDevice => libc::DT_CHR,
        FileType::BlockDevice => libc::DT_BLK,
        FileType::Unknown => libc::DT_UNKNOWN,
    })
}

/// Whether `add` took the entry, so that listing goes on.
type Add<'a> = &'a mut dyn FnMut(DirEntry<'_>, &CStr) -> io::Result<bool>;

impl ShareFs {
    pub(super) fn open_directory(&self, inode: u64) -> io::Result<u64> {
        if inode == ROOT {
            return Ok(self.handles.insert(Handle::Root));
        }
        let node = self.nodes.get(inode)?;
        if !node.is_directory() {
            return Err(Errno::NOTDIR.into());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let file = self.descriptors.reopen(&node.path, flags)?;
        Ok(self.keep_open(node, file))
    }

    pub(super) fn list(
        &self,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.each_entry(handle, size, offset, &mut |entry, _| Ok(add(entry)? > 0))
    }

    pub(super) fn list_with_entries(
        &self,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.each_entry(handle, size, offset, &mut |found, name| {
            let entry = match name.to_bytes() {
                b"." | b".." => Entry::default(),
                // It may be gone by now, or out of reach: the guest then looks it up itself.
                _ => self.look_up(inode, name).unwrap_or_default(),
            };
            let outcome = add(found, entry);
            if entry.inode != 0 && !matches!(outcome, Ok(count) if count > 0) {
                self.nodes.forget(entry.inode, 1);
            }
            Ok(outcome? > 0)
        })
    }

    fn each_entry(&self, handle: u64, size: u32, offset: u64, add: Add<'_>) -> io::Result<()> {
        let handle = self.handles.get(handle)?;
        let Handle::Opened { node, file } = &*handle else {
            return self.each_share(offset, add);
        };
        if !node.is_directory() {
            return Err(Errno::NOTDIR.into());
        }
        let file = file.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&*file, SeekFrom::Start(offset))?;
        let length = (size as usize).clamp(1024, BUFFER_BYTES);
        let mut buffer = vec![MaybeUninit::uninit(); length];
        let mut entries = RawDir::new(&*file, &mut buffer);
        let mut first = true;
        // One buffer only: what is left of it is read again from its own offset.
        while first || !entries.is_buffer_empty() {
            let Some(entry) = entries.next() else { break };
            let entry = entry?;
            let found = DirEntry {
                ino: entry.ino(),
                offset: entry.next_entry_cookie(),
                type_: entry_type(entry.file_type()),
                name: entry.file_name().to_bytes(),
            };
            match add(found, entry.file_name()) {
                Ok(true) => first = false,
                Ok(false) => break,
                // What is in the answer already has been counted: the error comes next time.
                Err(error) if first => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn each_share(&self, offset: u64, add: Add<'_>) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
        for (index, share) in self.shares.all().iter().enumerate().skip(start) {
            let found = DirEntry {
                // Not 0, which means "deleted"; the guest takes numbers from lookups.
                ino: ROOT + 1 + index as u64,
                offset: index as u64 + 1,
                type_: u32::from(libc::DT_DIR),
                name: share.name.to_bytes(),
            };
            if !add(found, &share.name)? {
                break;
            }
        }
        Ok(())
    }
}
