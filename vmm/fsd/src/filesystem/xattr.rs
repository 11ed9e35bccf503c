//! Extended attributes of regular files and directories. Other kinds of files can have none
//! that a guest may use (xattr(7)).

use std::ffi::CStr;
use std::fs::File;
use std::io;

use fuse_backend_rs::api::filesystem::{GetxattrReply, ListxattrReply};
use rustix::fs::{OFlags, XattrFlags};
use rustix::io::Errno;

use super::ShareFs;
use crate::node::{Node, ROOT};

/// XATTR_SIZE_MAX and XATTR_LIST_MAX (linux/limits.h).
const SIZE_MAX_BYTES: usize = 65536;

/// What belongs to the host's own security is neither shown nor changed.
fn visible(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability"
}

fn check(name: &CStr) -> io::Result<()> {
    if visible(name.to_bytes()) {
        Ok(())
    } else {
        Err(Errno::OPNOTSUPP.into())
    }
}

impl ShareFs {
    fn open_for_xattr(&self, node: &Node) -> io::Result<File> {
        match node.kind {
            libc::S_IFREG | libc::S_IFDIR => self.descriptors.reopen(&node.path, OFlags::RDONLY),
            _ => Err(Errno::OPNOTSUPP.into()),
        }
    }

    fn xattr_file(&self, inode: u64) -> io::Result<File> {
        if inode == ROOT {
            return Err(Errno::OPNOTSUPP.into());
        }
        self.open_for_xattr(&*self.nodes.get(inode)?)
    }

    pub(super) fn get_xattr(
        &self,
        inode: u64,
        name: &CStr,
        size: u32,
    ) -> io::Result<GetxattrReply> {
        check(name)?;
        let file = self.xattr_file(inode)?;
        let mut value = vec![0; SIZE_MAX_BYTES];
        let length = rustix::fs::fgetxattr(&file, name, &mut value)?;
        value.truncate(length);
        match size as usize {
            0 => Ok(GetxattrReply::Count(length as u32)),
            size if size < length => Err(Errno::RANGE.into()),
            _ => Ok(GetxattrReply::Value(value)),
        }
    }

    pub(super) fn list_xattr(&self, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        let file = match self.xattr_file(inode) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                return Ok(if size == 0 {
                    ListxattrReply::Count(0)
                } else {
                    ListxattrReply::Names(Vec::new())
                });
            }
            other => other?,
        };
        let mut names = vec![0; SIZE_MAX_BYTES];
        let length = rustix::fs::flistxattr(&file, &mut names)?;
        let shown: Vec<u8> = names
            .get(..length)
            .unwrap_or_default()
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| visible(name.strip_suffix(&[0]).unwrap_or(name)))
            .flatten()
            .copied()
            .collect();
        match size as usize {
            0 => Ok(ListxattrReply::Count(shown.len() as u32)),
            size if size < shown.len() => Err(Errno::RANGE.into()),
            _ => Ok(ListxattrReply::Names(shown)),
        }
    }

    pub(super) fn set_xattr(
        &self,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> io::Result<()> {
        check(name)?;
        let file = self.changing_xattr(inode)?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        Ok(rustix::fs::fsetxattr(&file, name, value, flags)?)
    }

    pub(super) fn remove_xattr(&self, inode: u64, name: &CStr) -> io::Result<()> {
        check(name)?;
        let file = self.changing_xattr(inode)?;
        Ok(rustix::fs::fremovexattr(&file, name)?)
    }

    fn changing_xattr(&self, inode: u64) -> io::Result<File> {
        if inode == ROOT {
            return Err(Errno::ROFS.into());
        }
        let node = self.nodes.get(inode)?;
        node.writable()?;
        self.open_for_xattr(&node)
    }
}
