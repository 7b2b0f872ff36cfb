//! What a guest has open.

mod saved;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use rustix::io::Errno;

use crate::sync::{read, write};

#[cfg(test)]
pub(super) use self::saved::SavedHandle;
pub(super) use self::saved::{Access, SavedHandles};

/// An open file or directory of the host.
pub(super) enum Handle {
    File(File),
    /// A directory; its position belongs to whoever holds the lock.
    Directory(Mutex<OwnedFd>),
    /// What was not found again when the share was restored: every use of it answers ESTALE.
    Gone(Access),
}

/// All handles with their nodes, of which there are at most a given number.
pub(super) struct Handles {
    table: RwLock<HashMap<u64, (u64, Arc<Handle>)>>,
    next: AtomicU64,
    max: usize,
}

impl Handles {
    pub(super) fn new(max: usize) -> Self {
        Self {
            table: RwLock::default(),
            next: AtomicU64::new(1),
            max,
        }
    }

    /// Adds a handle of `node`; ENFILE when there are too many. Numbers are not used twice, so that a stale one is
    /// recognised.
    pub(super) fn add(&self, node: u64, handle: Handle) -> Result<u64, Errno> {
        let mut table = write(&self.table);
        if table.len() >= self.max {
            return Err(Errno::NFILE);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        table.insert(id, (node, Arc::new(handle)));
        Ok(id)
    }

    pub(super) fn get(&self, id: u64) -> Result<Arc<Handle>, Errno> {
        read(&self.table)
            .get(&id)
            .map(|(_, handle)| Arc::clone(handle))
            .ok_or(Errno::BADF)
    }

    /// Any handle of a node.
    pub(super) fn of_node(&self, node: u64) -> Option<Arc<Handle>> {
        let table = read(&self.table);
        table
            .values()
            .find(|(of, _)| *of == node)
            .map(|(_, handle)| Arc::clone(handle))
    }

    pub(super) fn remove(&self, id: u64) {
        let removed = write(&self.table).remove(&id);
        // The file is closed without the lock.
        drop(removed);
    }

    pub(super) fn clear(&self) {
        let closed = std::mem::take(&mut *write(&self.table));
        drop(closed);
    }
}

impl Handle {
    /// The file; EISDIR for a directory.
    pub(super) fn file(&self) -> Result<&File, Errno> {
        match self {
            Self::File(file) => Ok(file),
            Self::Directory(_) => Err(Errno::ISDIR),
            Self::Gone(_) => Err(Errno::STALE),
        }
    }

    /// The directory; ENOTDIR for a file.
    pub(super) fn directory(&self) -> Result<&Mutex<OwnedFd>, Errno> {
        match self {
            Self::Directory(directory) => Ok(directory),
            Self::File(_) => Err(Errno::NOTDIR),
            Self::Gone(_) => Err(Errno::STALE),
        }
    }
}
