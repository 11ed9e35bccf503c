//! Writes the planned image, front to back, the superblock last.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use thiserror::Error;

use super::directory::{self, DirectoryEntry};
use super::format::{BLOCK_BYTES, Inode, Superblock, encode_device};
use super::plan::{Plan, PlannedInode, directory_names, file_type};
use crate::layer::{Content, DataRange, DeviceKind, NodeId, Tree};

const BUFFER_BYTES: usize = 1 << 20;
/// `S_IFMT` values of `st_mode` (inode(7)).
const MODE_DIRECTORY: u16 = 0o040_000;
const MODE_REGULAR: u16 = 0o100_000;
const MODE_SYMLINK: u16 = 0o120_000;
const MODE_CHARACTER: u16 = 0o020_000;
const MODE_BLOCK: u16 = 0o060_000;
const MODE_FIFO: u16 = 0o010_000;

/// An image could not be written.
#[derive(Debug, Error)]
pub(crate) enum ErofsError {
    /// More blocks than the format can number (16 TiB).
    #[error("the image is larger than EROFS can hold")]
    TooLarge,
    /// A layer's spool could not be read.
    #[error("reading layer {layer}: {source}")]
    Read {
        /// Index of the layer.
        layer: usize,
        /// Why.
        source: io::Error,
    },
    /// The image file could not be written.
    #[error("writing the image: {0}")]
    Write(#[from] io::Error),
}

/// Writes `tree` to `output`, which is empty, and syncs it. `spools` has the layers by index,
/// `uuid` and `name` are what the filesystem is called. Returns the image's size in bytes.
pub(crate) fn write_image(
    tree: &Tree,
    spools: &[File],
    uuid: [u8; 16],
    name: &str,
    output: &File,
) -> Result<u64, ErofsError> {
    let plan = Plan::new(tree)?;
    let mut writer = Writer {
        tree,
        spools,
        plan: &plan,
        output: BufWriter::with_capacity(BUFFER_BYTES, output),
        position: BLOCK_BYTES,
        buffer: vec![0; BUFFER_BYTES],
    };
    writer.output.seek(SeekFrom::Start(BLOCK_BYTES))?;
    writer.write_inodes()?;
    writer.write_content()?;
    let bytes = u64::from(plan.blocks) * BLOCK_BYTES;
    writer.pad_to(bytes)?;
    writer.output.flush()?;
    let superblock = Superblock {
        root: u16::try_from(plan.nid(Tree::ROOT)).map_err(|_| ErofsError::TooLarge)?,
        inodes: plan.inodes.len() as u64,
        blocks: plan.blocks,
        uuid,
        volume_name: volume_name(name),
    };
    output.write_all_at(&superblock.to_block(), 0)?;
    output.sync_all()?;
    Ok(bytes)
}

fn volume_name(name: &str) -> [u8; 16] {
    let mut field = [0; 16];
    // The last byte stays NUL.
    for (target, byte) in field.iter_mut().take(15).zip(name.bytes()) {
        *target = byte;
    }
    field
}

struct Writer<'a> {
    tree: &'a Tree,
    spools: &'a [File],
    plan: &'a Plan,
    output: BufWriter<&'a File>,
    position: u64,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn write_inodes(&mut self) -> Result<(), ErofsError> {
        let plan = self.plan;
        for (number, planned) in plan.inodes.iter().enumerate() {
            self.pad_to(planned.offset)?;
            let inode = self.inode(planned, number);
            self.write(&inode.to_bytes())?;
            self.write(&planned.xattrs)?;
            let inline = planned.inline_bytes();
            if inline > 0 {
                self.write_range(planned, planned.size - inline, inline)?;
            }
        }
        Ok(())
    }

    fn write_content(&mut self) -> Result<(), ErofsError> {
        let plan = self.plan;
        for planned in plan.inodes.iter().filter(|planned| planned.blocks() > 0) {
            self.pad_to(u64::from(planned.block) * BLOCK_BYTES)?;
            self.write_range(planned, 0, planned.size - planned.inline_bytes())?;
        }
        Ok(())
    }

    fn inode(&self, planned: &PlannedInode, number: usize) -> Inode {
        let node = self.tree.node(planned.node);
        let metadata = &node.metadata;
        let (kind, address) = match &node.content {
            Content::Directory(_) => (MODE_DIRECTORY, planned.block),
            Content::File(_) => (MODE_REGULAR, planned.block),
            Content::Symlink(_) => (MODE_SYMLINK, planned.block),
            Content::Device { kind, major, minor } => match kind {
                DeviceKind::Character => (MODE_CHARACTER, encode_device(*major, *minor)),
                DeviceKind::Block => (MODE_BLOCK, encode_device(*major, *minor)),
            },
            Content::Fifo => (MODE_FIFO, 0),
        };
        // Linux shows every symbolic link as 0777.
        let permissions = if kind == MODE_SYMLINK {
            0o777
        } else {
            metadata.mode
        };
        Inode {
            layout: planned.layout,
            xattr_bytes: planned.xattrs.len() as u64,
            mode: kind | permissions,
            size: planned.size,
            address,
            number: u32::try_from(number + 1).unwrap_or(u32::MAX),
            uid: metadata.uid,
            gid: metadata.gid,
            mtime_seconds: metadata.mtime_seconds,
            mtime_nanoseconds: metadata.mtime_nanoseconds,
            links: planned.links,
        }
    }

    /// Writes a part of an inode's content.
    fn write_range(
        &mut self,
        planned: &PlannedInode,
        offset: u64,
        bytes: u64,
    ) -> Result<(), ErofsError> {
        let tree = self.tree;
        match &tree.node(planned.node).content {
            Content::File(range) => {
                let part = DataRange {
                    offset: range.offset + offset,
                    bytes,
                    ..*range
                };
                self.copy(part)
            }
            Content::Symlink(target) => self.write_part(target, offset, bytes),
            Content::Directory(_) => {
                let content = self.directory(planned.node, planned.parent);
                self.write_part(&content, offset, bytes)
            }
            Content::Device { .. } | Content::Fifo => Ok(()),
        }
    }

    fn write_part(&mut self, content: &[u8], offset: u64, bytes: u64) -> Result<(), ErofsError> {
        let start = usize::try_from(offset).map_err(|_| ErofsError::TooLarge)?;
        let end = usize::try_from(offset + bytes).map_err(|_| ErofsError::TooLarge)?;
        self.write(content.get(start..end).unwrap_or_default())
    }

    fn directory(&self, node: NodeId, parent: NodeId) -> Vec<u8> {
        let names = directory_names(self.tree, node);
        let entries: Vec<_> = names
            .into_iter()
            .map(|name| {
                let target = match name {
                    b"." => node,
                    b".." => parent,
                    name => self.tree.child(node, name).unwrap_or(node),
                };
                DirectoryEntry {
                    name,
                    nid: self.plan.nid(target),
                    file_type: file_type(&self.tree.node(target).content),
                }
            })
            .collect();
        directory::content(&entries)
    }

    fn copy(&mut self, range: DataRange) -> Result<(), ErofsError> {
        let failed = |source| ErofsError::Read {
            layer: range.layer,
            source,
        };
        let missing = || failed(io::Error::from(io::ErrorKind::NotFound));
        let spool = self.spools.get(range.layer).ok_or_else(missing)?;
        let mut done = 0;
        while done < range.bytes {
            let length = usize::try_from(range.bytes - done)
                .unwrap_or(BUFFER_BYTES)
                .min(BUFFER_BYTES);
            let Some(chunk) = self.buffer.get_mut(..length) else {
                return Err(ErofsError::TooLarge);
            };
            spool
                .read_exact_at(chunk, range.offset + done)
                .map_err(failed)?;
            self.output.write_all(chunk)?;
            done += length as u64;
        }
        self.position += range.bytes;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ErofsError> {
        self.output.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, position: u64) -> Result<(), ErofsError> {
        const ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
        while self.position < position {
            let bytes = (position - self.position).min(BLOCK_BYTES);
            let length = usize::try_from(bytes).unwrap_or(ZEROS.len());
            self.output
                .write_all(ZEROS.get(..length).unwrap_or(&ZEROS))?;
            self.position += bytes;
        }
        Ok(())
    }
}
