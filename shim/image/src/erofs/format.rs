//! The on-disk structures that are written, as bytes.

/// Size of a block, which is also the page size that every x86-64 guest has.
pub(super) const BLOCK_BYTES: u64 = 4096;
const BLOCK_BITS: u8 = 12;
/// Where the superblock is.
pub(super) const SUPERBLOCK_OFFSET: usize = 1024;
const SUPERBLOCK_BYTES: usize = 128;
const CHECKSUM_OFFSET: usize = 4;
const MAGIC: u32 = 0xe0f5_e1e2;
/// The superblock has a checksum.
const COMPAT_SB_CHECKSUM: u32 = 0x1;
/// Extended inodes have modification times, not change times.
const COMPAT_MTIME: u32 = 0x2;

/// Inodes are numbered by their place: byte offset divided by this.
pub(super) const INODE_SLOT_BYTES: u64 = 32;
/// Size of an extended inode.
pub(super) const INODE_BYTES: u64 = 64;
/// Lowest bit of `i_format`: the inode has the 64-byte form.
const VERSION_EXTENDED: u16 = 1;

/// How an inode's content is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In whole blocks.
    Plain,
    /// In whole blocks, and what is left over right after the inode.
    Inline,
}

impl Layout {
    fn code(self) -> u16 {
        match self {
            Self::Plain => 0,
            Self::Inline => 2,
        }
    }
}

/// An inode's fields in the units of the format.
pub(super) struct Inode {
    pub layout: Layout,
    /// Bytes of the extended attribute area, 0 without one.
    pub xattr_bytes: u64,
    /// Type and permissions as in `st_mode`.
    pub mode: u16,
    pub size: u64,
    /// First block, or device number.
    pub address: u32,
    /// For `stat` on 32-bit systems.
    pub number: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_seconds: i64,
    pub mtime_nanoseconds: u32,
    pub links: u32,
}

/// Header of the extended attribute area.
pub(super) const XATTR_HEADER_BYTES: u64 = 12;

impl Inode {
    pub fn to_bytes(&self) -> [u8; INODE_BYTES as usize] {
        let mut bytes = [0; INODE_BYTES as usize];
        let format = VERSION_EXTENDED | (self.layout.code() << 1);
        put(&mut bytes, 0, &format.to_le_bytes());
        put(&mut bytes, 2, &xattr_count(self.xattr_bytes).to_le_bytes());
        put(&mut bytes, 4, &self.mode.to_le_bytes());
        put(&mut bytes, 8, &self.size.to_le_bytes());
        put(&mut bytes, 16, &self.address.to_le_bytes());
        put(&mut bytes, 20, &self.number.to_le_bytes());
        put(&mut bytes, 24, &self.uid.to_le_bytes());
        put(&mut bytes, 28, &self.gid.to_le_bytes());
        put(&mut bytes, 32, &self.mtime_seconds.to_le_bytes());
        put(&mut bytes, 40, &self.mtime_nanoseconds.to_le_bytes());
        put(&mut bytes, 44, &self.links.to_le_bytes());
        bytes
    }
}

/// The `i_xattr_icount` that stands for an area of `bytes`: one for the header, one for each four
/// bytes after it. Areas are bounded when attributes are read (64 KiB), far under the field's 16
/// bits.
fn xattr_count(bytes: u64) -> u16 {
    match bytes.checked_sub(XATTR_HEADER_BYTES) {
        None => 0,
        Some(entries) => u16::try_from(entries / 4 + 1).unwrap_or(u16::MAX),
    }
}

/// The superblock's fields in the units of the format.
pub(super) struct Superblock {
    pub root: u16,
    pub inodes: u64,
    pub blocks: u32,
    pub uuid: [u8; 16],
    pub volume_name: [u8; 16],
}

impl Superblock {
    /// Block 0 with the superblock in it and its checksum set.
    pub fn to_block(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        let mut bytes = [0; SUPERBLOCK_BYTES];
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        put(
            &mut bytes,
            8,
            &(COMPAT_SB_CHECKSUM | COMPAT_MTIME).to_le_bytes(),
        );
        put(&mut bytes, 12, &[BLOCK_BITS]);
        put(&mut bytes, 14, &self.root.to_le_bytes());
        put(&mut bytes, 16, &self.inodes.to_le_bytes());
        put(&mut bytes, 36, &self.blocks.to_le_bytes());
        put(&mut bytes, 48, &self.uuid);
        put(&mut bytes, 64, &self.volume_name);
        put(&mut block, SUPERBLOCK_OFFSET, &bytes);
        let covered = block.get(SUPERBLOCK_OFFSET..).unwrap_or_default();
        let checksum = super::checksum::crc32c(covered);
        put(
            &mut block,
            SUPERBLOCK_OFFSET + CHECKSUM_OFFSET,
            &checksum.to_le_bytes(),
        );
        block
    }
}

/// The device number of a device inode, as Linux's `new_encode_dev`.
pub(super) fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12)
}

/// Copies `field` to `offset`. Offsets are constants of the format, inside their structure.
fn put(bytes: &mut [u8], offset: usize, field: &[u8]) {
    if let Some(target) = bytes.get_mut(offset..offset + field.len()) {
        target.copy_from_slice(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_devices_as_linux_does() {
        assert_eq!(encode_device(1, 3), 0x103);
        assert_eq!(encode_device(259, 0x12345), 0x1231_0345);
    }

    #[test]
    fn counts_extended_attribute_areas_in_words() {
        assert_eq!(xattr_count(0), 0);
        assert_eq!(xattr_count(12), 1);
        assert_eq!(xattr_count(12 + 24), 7);
    }
}
