//! Writes a merged tree as one EROFS image (Linux Documentation/filesystems/erofs.rst,
//! fs/erofs/erofs_fs.h).
//!
//! ```text
//! block 0        superblock at byte 1024, checksummed
//! block 1 …      inodes, each followed by its extended attributes and, where it is small, its
//!                content: files under INLINE_MAX_BYTES, short symbolic links, directory tails
//! then           blocks of larger files and directories
//! ```
//!
//! Uncompressed, 4096-byte blocks, extended (64-byte) inodes so that every file keeps its own
//! time. Files that are not inlined start on a block and are never tail-packed, so that the guest
//! can map them directly (DAX). The same tree always gives the same bytes.

mod checksum;
mod directory;
mod format;
mod plan;
mod writer;
mod xattr;

pub(crate) use writer::{ErofsError, write_image};

#[cfg(test)]
#[path = "mount_tests.rs"]
mod mount_tests;
