//! A copy-on-write overlay: what a guest changes, in memory, on top of a read-only tree.
//!
//! - [`store`]: where changed bytes lie, and the guest's budget.
//! - [`extents`], [`contents`]: the contents of one changed file, copied block by block as they are written.
//! - [`inode`]: changed inodes. A changed inode keeps the number it has in the image.
//! - [`names`]: changed directories. A changed directory is copied whole, names and numbers only.
//! - [`changes`]: creating, removing and moving names; [`attributes`]: the rest of what can change.
//! - [`service`]: the overlay as a [`crate::Tree`]; [`host_side`]: what the host reads and puts in;
//!   [`saved`]: its state, for another overlay over the same image to go on with.
//!
//! Node ids are inode numbers, so the guest needs no handles: opening and closing cost it no request.
//!
//! Lock order: `names`, then the inode table, then one inode, then the store's free blocks. Reading and
//! writing contents takes no lock but the file's own, and a file of the image none at all beyond a look into
//! the table.

mod attributes;
mod changes;
mod contents;
mod extents;
mod host_side;
mod inode;
mod names;
mod saved;
mod service;
mod slices;
mod store;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use rustix::io::Errno;

pub use self::store::Scratch;

use self::inode::InodeTable;
use self::names::Names;
use self::store::Store;
use crate::attr::{Entry, FileKind};
use crate::error::Error;
use crate::protocol::ROOT_ID;
use crate::read_only::ReadOnlyTree;

/// How much an [`Overlay`] may hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayOptions {
    /// Where changed contents lie.
    pub scratch: Scratch,
    /// Most bytes of changed contents, names, attributes and inodes together; beyond, the guest sees ENOSPC.
    pub max_bytes: u64,
    /// Most inodes that are new or changed; beyond, the guest sees ENOSPC.
    pub max_inodes: u64,
}

impl Default for OverlayOptions {
    /// 8 GiB and 2^20 inodes, in memory.
    fn default() -> Self {
        Self {
            scratch: Scratch::Memory,
            max_bytes: 8 << 30,
            max_inodes: 1 << 20,
        }
    }
}

/// A file system that begins as a read-only tree and holds what a guest changes.
pub struct Overlay {
    lower: Arc<dyn ReadOnlyTree>,
    store: Arc<Store>,
    names: RwLock<Names>,
    inodes: InodeTable,
    next_ino: AtomicU64,
}

impl Overlay {
    /// An overlay over `lower`.
    ///
    /// # Errors
    /// [`Error::NoRoot`] when inode 1 of `lower` is no directory; [`Error::ScratchMemory`] or
    /// [`Error::ScratchDirectory`] when the scratch file cannot be made.
    pub fn new(lower: Arc<dyn ReadOnlyTree>, options: &OverlayOptions) -> Result<Self, Error> {
        if lower
            .node(ROOT_ID)
            .is_none_or(|node| node.kind != FileKind::Directory)
        {
            return Err(Error::NoRoot);
        }
        let store = Arc::new(Store::new(
            &options.scratch,
            options.max_bytes,
            options.max_inodes,
        )?);
        Ok(Self {
            names: RwLock::new(Names::new(Arc::clone(&lower), Arc::clone(&store))),
            inodes: InodeTable::new(Arc::clone(&lower), Arc::clone(&store)),
            next_ino: AtomicU64::new(lower.max_inode().saturating_add(1)),
            store,
            lower,
        })
    }

    /// A number that no inode has had.
    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Fails unless `dir` is a directory that names lead to.
    fn require_directory(&self, dir: u64) -> Result<(), Errno> {
        let found = self.inodes.find(dir)?;
        if found.kind() != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        if found.is_linked() {
            Ok(())
        } else {
            Err(Errno::NOENT)
        }
    }

    /// The entry of inode `ino`, with one more use by the guest.
    fn entry(&self, ino: u64) -> Result<Entry, Errno> {
        let attr = self.inodes.find(ino)?.attr();
        self.inodes.count_use(ino);
        Ok(Entry { node: ino, attr })
    }
}
