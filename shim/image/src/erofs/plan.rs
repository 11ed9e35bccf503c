//! Where everything goes: the order of inodes, their places, and the blocks of their content.

use super::directory::{FileType, content_bytes};
use super::format::{BLOCK_BYTES, INODE_BYTES, INODE_SLOT_BYTES, Layout};
use super::writer::ErofsError;
use super::xattr;
use crate::layer::{Content, DeviceKind, NodeId, Tree};

/// Content up to this size is put after its inode. More would waste more space before an inode
/// that no longer fits its block than a block of its own wastes at its end.
const INLINE_MAX_BYTES: u64 = BLOCK_BYTES / 2;
/// First byte of the inodes: block 1.
const INODES_OFFSET: u64 = BLOCK_BYTES;

/// One inode of the image.
pub(super) struct PlannedInode {
    pub node: NodeId,
    /// The directory above, for `..`; only directories have it.
    pub parent: NodeId,
    pub offset: u64,
    pub xattrs: Vec<u8>,
    pub size: u64,
    pub layout: Layout,
    /// First block of the content, where it has any.
    pub block: u32,
    pub links: u32,
}

impl PlannedInode {
    pub fn nid(&self) -> u64 {
        self.offset / INODE_SLOT_BYTES
    }

    /// Bytes after the inode that are not in blocks.
    pub fn inline_bytes(&self) -> u64 {
        match self.layout {
            Layout::Plain => 0,
            Layout::Inline => self.size % BLOCK_BYTES,
        }
    }

    pub fn blocks(&self) -> u64 {
        match self.layout {
            Layout::Plain => self.size.div_ceil(BLOCK_BYTES),
            Layout::Inline => self.size / BLOCK_BYTES,
        }
    }
}

/// The whole image.
pub(super) struct Plan {
    /// In the order of their places; the root is the first.
    pub inodes: Vec<PlannedInode>,
    /// By node: the node's place in `inodes`.
    by_node: Vec<Option<u32>>,
    /// Blocks of the whole image.
    pub blocks: u32,
}

impl Plan {
    pub fn new(tree: &Tree) -> Result<Self, ErofsError> {
        let mut plan = Self::number(tree);
        let inodes_end = plan.place_inodes();
        plan.place_content(tree, inodes_end)?;
        Ok(plan)
    }

    pub fn nid(&self, node: NodeId) -> u64 {
        self.index(node)
            .and_then(|index| self.inodes.get(index))
            .map_or(0, PlannedInode::nid)
    }

    fn index(&self, node: NodeId) -> Option<usize> {
        let index = self.by_node.get(node.index()).copied().flatten()?;
        usize::try_from(index).ok()
    }

    /// Orders the inodes so that a directory's entries are together, and counts their links.
    fn number(tree: &Tree) -> Self {
        let mut plan = Self {
            inodes: Vec::new(),
            by_node: vec![None; tree.len()],
            blocks: 0,
        };
        plan.visit(tree, Tree::ROOT, Tree::ROOT);
        let mut directories = vec![(Tree::ROOT, 0)];
        while let Some((directory, index)) = directories.pop() {
            let mut below = Vec::new();
            for link in tree
                .children(directory)
                .into_iter()
                .flat_map(|c| c.values())
            {
                let child = plan.visit(tree, link.node, directory);
                if tree.children(link.node).is_some() {
                    below.push((link.node, child));
                }
            }
            if let Some(inode) = plan.inodes.get_mut(index) {
                // A directory is named by its parent, by itself, and by each directory in it.
                inode.links = u32::try_from(2 + below.len()).unwrap_or(u32::MAX);
            }
            directories.extend(below.into_iter().rev());
        }
        plan
    }

    /// Plans an inode, or counts one more link to it.
    fn visit(&mut self, tree: &Tree, node: NodeId, parent: NodeId) -> usize {
        if let Some(index) = self.index(node) {
            if let Some(inode) = self.inodes.get_mut(index) {
                inode.links = inode.links.saturating_add(1);
            }
            return index;
        }
        let metadata = &tree.node(node).metadata;
        let size = content_size(tree, node);
        let index = self.inodes.len();
        self.inodes.push(PlannedInode {
            node,
            parent,
            offset: 0,
            xattrs: xattr::area(&metadata.xattrs),
            size,
            layout: preferred_layout(tree, node, size),
            block: 0,
            links: 1,
        });
        if let Some(place) = self.by_node.get_mut(node.index()) {
            *place = u32::try_from(index).ok();
        }
        index
    }

    /// Gives each inode its offset. Returns where the inodes end.
    fn place_inodes(&mut self) -> u64 {
        let mut position = INODES_OFFSET;
        for inode in &mut self.inodes {
            position = position.next_multiple_of(INODE_SLOT_BYTES);
            let head = INODE_BYTES + inode.xattrs.len() as u64;
            let tail = inode.inline_bytes();
            // What is inlined has to lie within one block, and Linux reads an inlined symbolic
            // link from the block of its inode.
            if tail > 0 && head + tail > BLOCK_BYTES {
                inode.layout = Layout::Plain;
            } else if tail > 0 && crosses_block(position, head + tail) {
                position = position.next_multiple_of(BLOCK_BYTES);
            }
            inode.offset = position;
            position += head + inode.inline_bytes();
        }
        position
    }

    fn place_content(&mut self, tree: &Tree, inodes_end: u64) -> Result<(), ErofsError> {
        let mut block = inodes_end.div_ceil(BLOCK_BYTES);
        for inode in &mut self.inodes {
            if has_content(tree, inode.node) && inode.blocks() > 0 {
                inode.block = u32::try_from(block).map_err(|_| ErofsError::TooLarge)?;
                block = block
                    .checked_add(inode.blocks())
                    .ok_or(ErofsError::TooLarge)?;
            }
        }
        self.blocks = u32::try_from(block).map_err(|_| ErofsError::TooLarge)?;
        Ok(())
    }
}

fn crosses_block(start: u64, bytes: u64) -> bool {
    start % BLOCK_BYTES + bytes > BLOCK_BYTES
}

fn has_content(tree: &Tree, node: NodeId) -> bool {
    matches!(
        tree.node(node).content,
        Content::Directory(_) | Content::File(_) | Content::Symlink(_)
    )
}

fn content_size(tree: &Tree, node: NodeId) -> u64 {
    match &tree.node(node).content {
        Content::Directory(_) => content_bytes(directory_names(tree, node).into_iter()),
        Content::File(range) => range.bytes,
        Content::Symlink(target) => target.len() as u64,
        Content::Device { .. } | Content::Fifo => 0,
    }
}

fn preferred_layout(tree: &Tree, node: NodeId, size: u64) -> Layout {
    let tail = size % BLOCK_BYTES;
    let is_directory = matches!(tree.node(node).content, Content::Directory(_));
    // A large file stays in whole blocks to the end, see the module's story.
    if tail > 0 && tail <= INLINE_MAX_BYTES && (is_directory || size < BLOCK_BYTES) {
        Layout::Inline
    } else {
        Layout::Plain
    }
}

/// All names of a directory, `.` and `..` in their places.
pub(super) fn directory_names(tree: &Tree, node: NodeId) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = vec![b".", b".."];
    if let Some(children) = tree.children(node) {
        names.extend(children.keys().map(|name| &**name));
    }
    names.sort_unstable();
    names
}

pub(super) fn file_type(content: &Content) -> FileType {
    match content {
        Content::Directory(_) => FileType::Directory,
        Content::File(_) => FileType::Regular,
        Content::Symlink(_) => FileType::Symlink,
        Content::Device {
            kind: DeviceKind::Character,
            ..
        } => FileType::Character,
        Content::Device {
            kind: DeviceKind::Block,
            ..
        } => FileType::Block,
        Content::Fifo => FileType::Fifo,
    }
}
