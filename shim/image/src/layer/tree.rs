//! The merged tree of an image. Nodes live in one arena and refer to each other by number, so
//! that no depth of directories that a layer can think of recurses or overflows a stack.

use std::collections::BTreeMap;

use super::LayerFault;
use super::path::{MAX_PATH_BYTES, climbs};

/// Symbolic links followed on the way to one directory, as Linux's MAXSYMLINKS.
const MAX_SYMLINKS: usize = 40;
/// Directories on the way from the root to an entry.
const MAX_DEPTH: usize = 1024;
/// Mode of directories that a layer implies without naming them.
const IMPLICIT_DIRECTORY_MODE: u16 = 0o755;

/// Number of a node in its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

impl NodeId {
    /// Place in an array with one element per node.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Attributes that every kind of node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime_seconds: i64,
    pub mtime_nanoseconds: u32,
    /// Full names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Where a regular file's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DataRange {
    /// Index of the layer whose spool has them.
    pub layer: usize,
    pub offset: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    Character,
    Block,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Directory(BTreeMap<Box<[u8]>, Link>),
    File(DataRange),
    Symlink(Box<[u8]>),
    Device {
        kind: DeviceKind,
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub node: NodeId,
    /// The layer that last named this entry or something below it.
    pub layer: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub metadata: Metadata,
    pub content: Content,
}

/// What a tree may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeLimits {
    pub max_entries: u64,
    /// Names, link targets and extended attributes together, in bytes.
    pub max_metadata_bytes: u64,
}

pub(crate) struct Tree {
    nodes: Vec<Node>,
    limits: TreeLimits,
    entries: u64,
    metadata_bytes: u64,
}

impl Tree {
    pub const ROOT: NodeId = NodeId(0);

    pub fn new(limits: TreeLimits) -> Self {
        let metadata = Metadata {
            mode: IMPLICIT_DIRECTORY_MODE,
            ..Metadata::default()
        };
        let root = Node {
            metadata,
            content: Content::Directory(BTreeMap::new()),
        };
        Self {
            nodes: vec![root],
            limits,
            entries: 0,
            metadata_bytes: 0,
        }
    }

    /// Number of nodes ever made, replaced ones included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn node(&self, id: NodeId) -> &Node {
        // Ids are only made by `add`, and nodes never go away.
        &self.nodes[id.index()]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// Names of a directory; `None` if the node is none.
    pub fn children(&self, id: NodeId) -> Option<&BTreeMap<Box<[u8]>, Link>> {
        match &self.node(id).content {
            Content::Directory(children) => Some(children),
            _ => None,
        }
    }

    pub fn children_mut(&mut self, id: NodeId) -> Option<&mut BTreeMap<Box<[u8]>, Link>> {
        match &mut self.node_mut(id).content {
            Content::Directory(children) => Some(children),
            _ => None,
        }
    }

    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.children(directory)?.get(name).map(|link| link.node)
    }

    /// Counts an entry of a layer against the limits.
    pub fn charge(&mut self, metadata_bytes: usize) -> Result<(), LayerFault> {
        self.entries += 1;
        self.metadata_bytes += metadata_bytes as u64;
        let checks = [
            (
                "number of entries in the layers",
                self.entries,
                self.limits.max_entries,
            ),
            (
                "metadata of the layers",
                self.metadata_bytes,
                self.limits.max_metadata_bytes,
            ),
        ];
        for (what, actual, limit) in checks {
            if actual > limit {
                return Err(LayerFault::TooLarge {
                    what,
                    actual,
                    limit,
                });
            }
        }
        Ok(())
    }

    pub fn add(&mut self, node: Node) -> Result<NodeId, LayerFault> {
        let number = u32::try_from(self.nodes.len()).map_err(|_| LayerFault::TooLarge {
            what: "number of nodes",
            actual: self.nodes.len() as u64,
            limit: u64::from(u32::MAX),
        })?;
        self.nodes.push(node);
        Ok(NodeId(number))
    }

    /// Lets `name` in `directory` be `node`, whatever it was before.
    pub fn link(&mut self, directory: NodeId, name: &[u8], node: NodeId, layer: usize) {
        if let Some(children) = self.children_mut(directory) {
            children.insert(name.into(), Link { node, layer });
        }
    }

    /// The directory at `path`, with symbolic links on the way followed inside the image; one
    /// that climbs over the image's root is an error. Without
    /// `make`, a path that does not exist is `None`; with `make`, missing directories are made
    /// for that layer, and every name on the way is marked as named by it.
    pub fn directory(
        &mut self,
        path: &[&[u8]],
        make: Option<usize>,
    ) -> Result<Option<NodeId>, LayerFault> {
        // Names still to go, the next one last. They are owned, since links add names.
        let mut ahead: Vec<Box<[u8]>> = path.iter().rev().map(|name| (*name).into()).collect();
        let mut way = vec![Self::ROOT];
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            let here = way.last().copied().unwrap_or(Self::ROOT);
            match &*name {
                b"" | b"." => continue,
                // Only link targets have these. One that climbs over the root is no slip: an
                // entry is about to be put where the extracting host's files would be.
                b".." => {
                    if way.len() == 1 {
                        let whole = path.join(&b'/');
                        return Err(climbs(&whole, "it goes through a link out of the image"));
                    }
                    way.pop();
                    continue;
                }
                _ => {}
            }
            if way.len() > MAX_DEPTH {
                let reason = format!("directories nested deeper than {MAX_DEPTH}");
                return Err(LayerFault::Invalid(reason));
            }
            let Some(child) = self.child(here, &name) else {
                let Some(layer) = make else {
                    return Ok(None);
                };
                way.push(self.make_directory(here, &name, layer)?);
                continue;
            };
            if let Some(layer) = make
                && let Some(link) = self.children_mut(here).and_then(|c| c.get_mut(&name))
            {
                link.layer = layer;
            }
            match &self.node(child).content {
                Content::Directory(_) => way.push(child),
                Content::Symlink(target) => {
                    links += 1;
                    if links > MAX_SYMLINKS {
                        let reason = "too many symbolic links on the way to an entry";
                        return Err(LayerFault::Invalid(reason.to_owned()));
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    let names = target.split(|byte| *byte == b'/').rev();
                    ahead.extend(names.map(Box::from).collect::<Vec<_>>());
                }
                _ if make.is_none() => return Ok(None),
                _ => {
                    return Err(LayerFault::Invalid(format!(
                        "{} is below {}, which is not a directory",
                        display(path),
                        name.escape_ascii()
                    )));
                }
            }
        }
        Ok(way.last().copied())
    }

    fn make_directory(
        &mut self,
        parent: NodeId,
        name: &[u8],
        layer: usize,
    ) -> Result<NodeId, LayerFault> {
        self.charge(name.len())?;
        let metadata = Metadata {
            mode: IMPLICIT_DIRECTORY_MODE,
            ..Metadata::default()
        };
        let node = Node {
            metadata,
            content: Content::Directory(BTreeMap::new()),
        };
        let id = self.add(node)?;
        self.link(parent, name, id, layer);
        Ok(id)
    }

    /// The regular file at `path`, links followed, as a program in the container would open it.
    pub fn file(&mut self, path: &[&[u8]]) -> Result<Option<DataRange>, LayerFault> {
        let mut path: Vec<Vec<u8>> = path.iter().map(|name| name.to_vec()).collect();
        for _ in 0..=MAX_SYMLINKS {
            let Some((name, parents)) = path.split_last() else {
                return Ok(None);
            };
            let parents: Vec<&[u8]> = parents.iter().map(Vec::as_slice).collect();
            let Some(directory) = self.directory(&parents, None)? else {
                return Ok(None);
            };
            let Some(node) = self.child(directory, name) else {
                return Ok(None);
            };
            match &self.node(node).content {
                Content::File(range) => return Ok(Some(*range)),
                Content::Symlink(target) => {
                    let names = target.split(|byte| *byte == b'/').map(<[u8]>::to_vec);
                    let names: Vec<_> = names.collect();
                    if target.starts_with(b"/") {
                        path = names;
                    } else {
                        path.pop();
                        path.extend(names);
                    }
                    if path.len() > MAX_PATH_BYTES {
                        return Ok(None);
                    }
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn display(path: &[&[u8]]) -> String {
    path.join(&b'/').escape_ascii().to_string()
}
