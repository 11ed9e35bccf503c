//! Directory content: blocks of entries, each block with its entries first and the names after
//! them. Names are in byte order over the whole directory, `.` and `..` among them.

use super::format::BLOCK_BYTES;

const ENTRY_BYTES: usize = 12;
const BLOCK: usize = BLOCK_BYTES as usize;

/// One name of a directory.
pub(super) struct DirectoryEntry<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    pub file_type: FileType,
}

/// The types of `struct erofs_dirent`, which are those of Linux's `FT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileType {
    Regular = 1,
    Directory = 2,
    Character = 3,
    Block = 4,
    Fifo = 5,
    Symlink = 7,
}

/// Bytes that a directory of these names takes.
pub(super) fn content_bytes<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut packer = Packer::default();
    for name in names {
        packer.add(name.len());
    }
    packer.total()
}

/// The directory's content. Entries are in byte order of their names.
pub(super) fn content(entries: &[DirectoryEntry<'_>]) -> Vec<u8> {
    let mut packer = Packer::default();
    let mut content = Vec::new();
    let mut first = 0;
    for (number, entry) in entries.iter().enumerate() {
        if packer.add(entry.name.len()) {
            write_block(&mut content, entries.get(first..number).unwrap_or_default());
            content.resize(content.len().next_multiple_of(BLOCK), 0);
            first = number;
        }
    }
    write_block(&mut content, entries.get(first..).unwrap_or_default());
    content
}

fn write_block(content: &mut Vec<u8>, entries: &[DirectoryEntry<'_>]) {
    let mut name_offset = entries.len() * ENTRY_BYTES;
    for entry in entries {
        content.extend_from_slice(&entry.nid.to_le_bytes());
        // A block has 4096 bytes, so the offset fits.
        let offset = u16::try_from(name_offset).unwrap_or(u16::MAX);
        content.extend_from_slice(&offset.to_le_bytes());
        content.push(entry.file_type as u8);
        content.push(0);
        name_offset += entry.name.len();
    }
    for entry in entries {
        content.extend_from_slice(entry.name);
    }
}

/// Fills blocks with entries, none across a block's end.
#[derive(Default)]
struct Packer {
    full_blocks: u64,
    used: usize,
}

impl Packer {
    /// Whether the entry begins a new block.
    fn add(&mut self, name_bytes: usize) -> bool {
        let bytes = ENTRY_BYTES + name_bytes;
        if self.used + bytes > BLOCK {
            self.full_blocks += 1;
            self.used = bytes;
            return true;
        }
        self.used += bytes;
        false
    }

    fn total(&self) -> u64 {
        self.full_blocks * BLOCK_BYTES + self.used as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_and_content_agree_over_many_blocks() {
        let names: Vec<String> = (0..1000)
            .map(|number| format!("name-{number:05}"))
            .collect();
        let entries: Vec<_> = names
            .iter()
            .map(|name| DirectoryEntry {
                name: name.as_bytes(),
                nid: 7,
                file_type: FileType::Regular,
            })
            .collect();
        let bytes = content_bytes(names.iter().map(String::as_bytes));
        assert_eq!(content(&entries).len() as u64, bytes);
        assert!(bytes > 3 * BLOCK_BYTES);
    }
}
