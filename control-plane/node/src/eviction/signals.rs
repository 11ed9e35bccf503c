//! What is watched, and how much of it is left.

use std::collections::BTreeMap;
use std::path::Path;

use crate::context::NodeContext;
use crate::stats::node_usage::{Filesystem, Memory, process_ids};

/// A resource that can run short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// `memory.available`.
    MemoryAvailable,
    /// `nodefs.available`: the filesystem of the agent's directory.
    NodeFsAvailable,
    /// `nodefs.inodesFree`.
    NodeFsInodes,
    /// `imagefs.available`: the filesystem of images.
    ImageFsAvailable,
    /// `imagefs.inodesFree`.
    ImageFsInodes,
    /// `pid.available`.
    PidAvailable,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Signal; 6] = [
        Signal::MemoryAvailable,
        Signal::NodeFsAvailable,
        Signal::NodeFsInodes,
        Signal::ImageFsAvailable,
        Signal::ImageFsInodes,
        Signal::PidAvailable,
    ];

    /// The signal's name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory.available",
            Signal::NodeFsAvailable => "nodefs.available",
            Signal::NodeFsInodes => "nodefs.inodesFree",
            Signal::ImageFsAvailable => "imagefs.available",
            Signal::ImageFsInodes => "imagefs.inodesFree",
            Signal::PidAvailable => "pid.available",
        }
    }

    /// What is short, in a status message.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => "ephemeral-storage",
            Signal::NodeFsInodes | Signal::ImageFsInodes => "inodes",
            Signal::PidAvailable => "pids",
        }
    }

    /// Whether removing images helps.
    pub fn is_disk(self) -> bool {
        !matches!(self, Signal::MemoryAvailable | Signal::PidAvailable)
    }
}

/// How much of a resource there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// What is left.
    pub available: u64,
    /// All of it.
    pub capacity: u64,
}

/// What was found; a signal that could not be read is absent.
pub type Levels = BTreeMap<Signal, Level>;

/// Reads every signal.
pub(crate) async fn read(node: &NodeContext) -> Levels {
    let images = node.cri.image_filesystem().await.ok().flatten();
    let images = images
        .and_then(|usage| usage.fs_id)
        .and_then(|id| Filesystem::of(Path::new(&id.mountpoint)));
    let mut levels = Levels::new();
    if let Some(memory) = Memory::read() {
        let level = Level {
            available: memory.available,
            capacity: memory.total,
        };
        levels.insert(Signal::MemoryAvailable, level);
    }
    let own = Filesystem::of(&node.config.root_dir);
    add(
        &mut levels,
        own,
        Signal::NodeFsAvailable,
        Signal::NodeFsInodes,
    );
    add(
        &mut levels,
        images,
        Signal::ImageFsAvailable,
        Signal::ImageFsInodes,
    );
    if let Some((max, present)) = process_ids() {
        let level = Level {
            available: max.saturating_sub(present),
            capacity: max,
        };
        levels.insert(Signal::PidAvailable, level);
    }
    levels
}

fn add(levels: &mut Levels, found: Option<Filesystem>, bytes: Signal, inodes: Signal) {
    let Some(found) = found else { return };
    let level = Level {
        available: found.available_bytes,
        capacity: found.capacity_bytes,
    };
    levels.insert(bytes, level);
    // A filesystem that does not count inodes cannot run out of them.
    if found.inodes > 0 {
        let level = Level {
            available: found.inodes_free,
            capacity: found.inodes,
        };
        levels.insert(inodes, level);
    }
}
