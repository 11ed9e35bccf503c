//! What the guest knows by number: files and directories that it looked up.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::share::Share;
use crate::system::Attributes;

/// The root directory, which holds the shares and is no directory of the host.
pub const ROOT: u64 = 1;

/// What makes a file one file: the mount is part of it, since the same file may be in two
/// shares of which one is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Mount id.
    pub mount: u64,
    /// Device number of the filesystem.
    pub device: (u32, u32),
    /// Number in the filesystem.
    pub inode: u64,
}

/// A file of a share.
#[derive(Debug)]
pub struct Node {
    /// Number that the guest uses.
    pub id: u64,
    /// O_PATH descriptor; it keeps the inode number from being used again.
    pub path: OwnedFd,
    /// Mount, device and inode.
    pub identity: Identity,
    /// S_IFMT of the mode.
    pub kind: u32,
    /// Where it belongs.
    pub share: Arc<Share>,
}

impl Node {
    /// Fails with EROFS unless the guest may change the share.
    pub fn writable(&self) -> io::Result<()> {
        if self.share.read_only {
            return Err(Errno::ROFS.into());
        }
        Ok(())
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == libc::S_IFDIR
    }
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    lookups: u64,
}

#[derive(Debug)]
struct Table {
    by_id: HashMap<u64, Entry>,
    by_identity: HashMap<Identity, u64>,
    next: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Nodes(Mutex<Table>);

impl Default for Nodes {
    fn default() -> Self {
        Self(Mutex::new(Table {
            by_id: HashMap::new(),
            by_identity: HashMap::new(),
            next: ROOT + 1,
        }))
    }
}

impl Nodes {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node of this number; ESTALE when its share is gone.
    pub fn get(&self, id: u64) -> io::Result<Arc<Node>> {
        let node = self.lock().by_id.get(&id).map(|entry| entry.node.clone());
        match node {
            Some(node) if !node.share.is_revoked() => Ok(node),
            Some(_) => Err(Errno::STALE.into()),
            None => Err(Errno::BADF.into()),
        }
    }

    /// Counts a lookup of the file behind `path`.
    pub fn remember(
        &self,
        path: OwnedFd,
        attributes: &Attributes,
        share: &Arc<Share>,
    ) -> Arc<Node> {
        let mut table = self.lock();
        let known = table.by_identity.get(&attributes.identity).copied();
        if let Some(entry) = known.and_then(|id| table.by_id.get_mut(&id)) {
            entry.lookups = entry.lookups.saturating_add(1);
            return entry.node.clone();
        }
        let id = table.next;
        table.next += 1;
        let node = Arc::new(Node {
            id,
            path,
            identity: attributes.identity,
            kind: attributes.stat.st_mode & libc::S_IFMT,
            share: share.clone(),
        });
        table.by_identity.insert(attributes.identity, id);
        let entry = Entry {
            node: node.clone(),
            lookups: 1,
        };
        table.by_id.insert(id, entry);
        node
    }

    /// The guest dropped `count` lookups.
    pub fn forget(&self, id: u64, count: u64) {
        let mut table = self.lock();
        let Some(entry) = table.by_id.get_mut(&id) else {
            return;
        };
        entry.lookups = entry.lookups.saturating_sub(count);
        if entry.lookups == 0
            && let Some(entry) = table.by_id.remove(&id)
        {
            table.by_identity.remove(&entry.node.identity);
        }
    }

    /// Forgets all files of shares that were taken away: their mounts become free.
    pub fn drop_revoked(&self) {
        let mut table = self.lock();
        table
            .by_id
            .retain(|_, entry| !entry.node.share.is_revoked());
        let Table {
            by_id, by_identity, ..
        } = &mut *table;
        by_identity.retain(|_, id| by_id.contains_key(id));
    }

    /// Forgets everything: the guest unmounted.
    pub fn clear(&self) {
        let mut table = self.lock();
        table.by_id.clear();
        table.by_identity.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
