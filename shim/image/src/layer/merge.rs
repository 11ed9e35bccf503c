//! Applies one layer after the other to the tree (OCI image-spec layer.md, "Applying Changesets").
//!
//! Whiteouts take away what lower layers brought, wherever in their layer they stand; what the
//! same layer adds stays. To tell the two apart each name in a directory carries the number of
//! the layer that last named it.

use std::fs::File;

use tracing::debug;

use super::LayerFault;
use super::path::{MAX_PATH_BYTES, climbs, split};
use super::tar::{Entries, Entry, EntryKind};
use super::tree::{Content, DataRange, DeviceKind, Metadata, Node, NodeId, Tree};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";
/// Other names of AUFS's own bookkeeping begin so; they are not content.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// Extended attributes of one file, names and values, in bytes; the kernel's own limit for one
/// value (XATTR_SIZE_MAX).
const MAX_XATTR_BYTES: usize = 64 << 10;
/// Longest name of an extended attribute (XATTR_NAME_MAX).
const MAX_XATTR_NAME_BYTES: usize = 255;

/// Applies the archive in `spool`, layer number `layer`, on top of what `tree` has.
pub(crate) fn apply_layer(tree: &mut Tree, spool: &File, layer: usize) -> Result<(), LayerFault> {
    let mut entries = Entries::new(spool)?;
    while let Some(entry) = entries.next()? {
        apply(tree, entry, layer)?;
    }
    Ok(())
}

fn apply(tree: &mut Tree, mut entry: Entry, layer: usize) -> Result<(), LayerFault> {
    keep_known_xattrs(&mut entry.metadata, &entry.path)?;
    let xattr_bytes: usize = entry
        .metadata
        .xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    tree.charge(entry.path.len() + xattr_bytes)?;
    let path = split(&entry.path)?;
    let Some((name, parents)) = path.split_last() else {
        if entry.kind == EntryKind::Directory {
            tree.node_mut(Tree::ROOT).metadata = entry.metadata;
            return Ok(());
        }
        return Err(climbs(
            &entry.path,
            "it replaces the root with something else",
        ));
    };
    if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
        return apply_whiteout(tree, &entry.path, parents, name, hidden, layer);
    }
    let content = match entry.kind {
        EntryKind::Directory => return apply_directory(tree, parents, name, entry.metadata, layer),
        EntryKind::HardLink(target) => {
            return apply_hard_link(tree, parents, name, &target, layer);
        }
        EntryKind::File => Content::File(DataRange {
            layer,
            offset: entry.data_offset,
            bytes: entry.data_bytes,
        }),
        EntryKind::Symlink(target) => {
            check_symlink(&entry.path, &target)?;
            tree.charge(target.len())?;
            Content::Symlink(target.into())
        }
        EntryKind::Character { major, minor } => Content::Device {
            kind: DeviceKind::Character,
            major,
            minor,
        },
        EntryKind::Block { major, minor } => Content::Device {
            kind: DeviceKind::Block,
            major,
            minor,
        },
        EntryKind::Fifo => Content::Fifo,
    };
    let parent = made(tree.directory(parents, Some(layer))?);
    let node = tree.add(Node {
        metadata: entry.metadata,
        content,
    })?;
    tree.link(parent, name, node, layer);
    Ok(())
}

fn check_symlink(path: &[u8], target: &[u8]) -> Result<(), LayerFault> {
    if target.is_empty() || target.len() > MAX_PATH_BYTES || target.contains(&0) {
        let path = path.escape_ascii();
        let reason = format!(
            "symbolic link {path} has a target of {} bytes",
            target.len()
        );
        return Err(LayerFault::Invalid(reason));
    }
    Ok(())
}

/// A directory over a directory keeps its children; over anything else it replaces it.
fn apply_directory(
    tree: &mut Tree,
    parents: &[&[u8]],
    name: &[u8],
    metadata: Metadata,
    layer: usize,
) -> Result<(), LayerFault> {
    let parent = made(tree.directory(parents, Some(layer))?);
    let node = match tree.child(parent, name) {
        Some(existing) if tree.children(existing).is_some() => {
            tree.node_mut(existing).metadata = metadata;
            existing
        }
        _ => {
            let content = Content::Directory(std::collections::BTreeMap::new());
            tree.add(Node { metadata, content })?
        }
    };
    tree.link(parent, name, node, layer);
    Ok(())
}

/// A hard link names a file of the image that is there already. Its target is read from the
/// image's root, as its path is.
fn apply_hard_link(
    tree: &mut Tree,
    parents: &[&[u8]],
    name: &[u8],
    target: &[u8],
    layer: usize,
) -> Result<(), LayerFault> {
    let outside = |reason| Err(climbs(target, reason));
    let target_path = split(target)?;
    let Some((target_name, target_parents)) = target_path.split_last() else {
        return outside("a hard link to the root");
    };
    let found = tree
        .directory(target_parents, None)?
        .and_then(|directory| tree.child(directory, target_name));
    let Some(node) = found else {
        return outside("a hard link to a file that is not in the image");
    };
    if tree.children(node).is_some() {
        return outside("a hard link to a directory");
    }
    let parent = made(tree.directory(parents, Some(layer))?);
    tree.link(parent, name, node, layer);
    Ok(())
}

fn apply_whiteout(
    tree: &mut Tree,
    path: &[u8],
    parents: &[&[u8]],
    name: &[u8],
    hidden: &[u8],
    layer: usize,
) -> Result<(), LayerFault> {
    let opaque = name == OPAQUE_WHITEOUT;
    if !opaque && name.starts_with(AUFS_PREFIX) {
        return Ok(());
    }
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(climbs(path, "a whiteout that hides no file"));
    }
    let Some(directory) = tree.directory(parents, None)? else {
        return Ok(());
    };
    if opaque {
        purge_lower(tree, directory, layer);
        return Ok(());
    }
    let Some(children) = tree.children_mut(directory) else {
        return Ok(());
    };
    match children.get(hidden).copied() {
        Some(link) if link.layer < layer => {
            children.remove(hidden);
        }
        Some(link) => purge_lower(tree, link.node, layer),
        None => {}
    }
    Ok(())
}

/// Takes everything below `directory` away that no entry of `layer` has named.
fn purge_lower(tree: &mut Tree, directory: NodeId, layer: usize) {
    let mut directories = vec![directory];
    while let Some(directory) = directories.pop() {
        if let Some(children) = tree.children_mut(directory) {
            children.retain(|_, link| link.layer == layer);
            directories.extend(children.values().map(|link| link.node));
        }
    }
}

/// A directory asked for with `make` is always there.
fn made(directory: Option<NodeId>) -> NodeId {
    directory.unwrap_or(Tree::ROOT)
}

/// Keeps the attributes that a container can have and EROFS can hold, sorted and without
/// duplicates. Others are dropped: `trusted.` (the guest's overlay keeps its own marks there, and
/// a layer must not forge them), `security.selinux` (labels of another host's policy).
fn keep_known_xattrs(metadata: &mut Metadata, path: &[u8]) -> Result<(), LayerFault> {
    metadata.xattrs.retain(|(name, _)| {
        let keep = is_kept_xattr(name);
        if !keep {
            debug!(
                path = %path.escape_ascii(),
                attribute = %name.escape_ascii(),
                "extended attribute dropped"
            );
        }
        keep
    });
    // The last record of a name counts.
    metadata.xattrs.reverse();
    metadata.xattrs.sort_by(|a, b| a.0.cmp(&b.0));
    metadata
        .xattrs
        .dedup_by(|later, earlier| later.0 == earlier.0);
    let bytes: usize = metadata
        .xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > MAX_XATTR_BYTES {
        return Err(LayerFault::TooLarge {
            what: "extended attributes of one file",
            actual: bytes as u64,
            limit: MAX_XATTR_BYTES as u64,
        });
    }
    Ok(())
}

fn is_kept_xattr(name: &[u8]) -> bool {
    if name.len() > MAX_XATTR_NAME_BYTES || name.contains(&0) {
        return false;
    }
    let after = |prefix: &[u8]| name.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    let is_acl = matches!(
        name,
        b"system.posix_acl_access" | b"system.posix_acl_default"
    );
    is_acl
        || after(b"user.").is_some_and(|rest| !rest.starts_with(b"overlay."))
        || after(b"security.").is_some_and(|rest| rest != b"selinux")
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
