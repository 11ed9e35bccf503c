//! What the guest has open.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::node::Node;

/// An open file or directory.
#[derive(Debug)]
pub enum Handle {
    /// The root directory.
    Root,
    /// A file of a share.
    Opened {
        /// What it is.
        node: Arc<Node>,
        /// The open file. The lock keeps position and entries of a directory together.
        file: Mutex<File>,
    },
}

#[derive(Debug, Default)]
struct Table {
    handles: HashMap<u64, Arc<Handle>>,
    next: u64,
}

/// All handles, by number.
#[derive(Debug, Default)]
pub struct Handles(Mutex<Table>);

impl Handles {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an open file a number.
    pub fn insert(&self, handle: Handle) -> u64 {
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        table.handles.insert(number, Arc::new(handle));
        number
    }

    /// The handle of this number.
    pub fn get(&self, number: u64) -> io::Result<Arc<Handle>> {
        let handle = self.lock().handles.get(&number).cloned();
        match handle.as_deref() {
            Some(Handle::Opened { node, .. }) if node.share.is_revoked() => {
                Err(Errno::STALE.into())
            }
            _ => handle.ok_or_else(|| Errno::BADF.into()),
        }
    }

    /// Does something with the open file of this number.
    pub fn with<T>(
        &self,
        number: u64,
        action: impl FnOnce(&Node, &mut File) -> io::Result<T>,
    ) -> io::Result<T> {
        match &*self.get(number)? {
            Handle::Opened { node, file } => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                action(node, &mut file)
            }
            Handle::Root => Err(Errno::ISDIR.into()),
        }
    }

    /// The guest closed it.
    pub fn remove(&self, number: u64) {
        let handle = self.lock().handles.remove(&number);
        // Closing may take time: not under the lock.
        drop(handle);
    }

    /// Closes what is open in shares that were taken away.
    pub fn drop_revoked(&self) {
        let mut closed = Vec::new();
        self.lock().handles.retain(|_, handle| match &**handle {
            Handle::Opened { node, .. } if node.share.is_revoked() => {
                closed.push(handle.clone());
                false
            }
            _ => true,
        });
    }

    /// Closes everything: the guest unmounted.
    pub fn clear(&self) {
        let handles = std::mem::take(&mut self.lock().handles);
        drop(handles);
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.lock().handles.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
