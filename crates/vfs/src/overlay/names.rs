//! Directories the overlay has of its own.
//!
//! A directory of the image is copied, names and inode numbers only, when an entry of it changes first. From
//! then on nothing has to be merged: there are no whiteouts, and a directory that moves needs no marks,
//! because its entries are found by its inode number wherever it is.

mod saved;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::attr::FileKind;
use crate::read_only::ReadOnlyTree;

use super::store::Store;

pub(super) use self::saved::SavedNames;

/// Cookie of the first entry behind `.` and `..`, which have 1 and 2.
pub(super) const FIRST_COOKIE: u64 = 3;
/// What an entry costs besides its name, in bytes of the guest's budget.
const ENTRY_COST: u64 = 96;
/// Deepest directory that is looked at for cycles; a path of 4096 bytes is less deep.
const DEPTH_MAX: usize = 1 << 16;

/// The names of one directory.
pub(super) struct Directory {
    by_name: HashMap<Arc<[u8]>, u64>,
    /// In listing order; an entry keeps its cookie while it exists.
    entries: BTreeMap<u64, Name>,
    next_cookie: u64,
    store: Arc<Store>,
}

/// An entry of a directory.
#[derive(Clone)]
pub(super) struct Name {
    pub(super) name: Arc<[u8]>,
    pub(super) ino: u64,
    pub(super) kind: FileKind,
}

/// What [`Names::find`] found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) ino: u64,
    pub(super) kind: FileKind,
}

/// What a name costs of the guest's budget.
pub(super) fn name_cost(name: &[u8]) -> u64 {
    ENTRY_COST + name.len() as u64
}

impl Directory {
    fn empty(store: &Arc<Store>) -> Self {
        Self {
            by_name: HashMap::new(),
            entries: BTreeMap::new(),
            next_cookie: FIRST_COOKIE,
            store: Arc::clone(store),
        }
    }

    /// A copy of directory `dir` of the image, with the cookies its entries had there. Its cost is bounded by
    /// the image and never refused.
    fn from_image(dir: u64, lower: &dyn ReadOnlyTree, store: &Arc<Store>) -> Self {
        let mut directory = Self::empty(store);
        lower.children(dir, 0, &mut |child| {
            directory.store.bytes.charge_always(name_cost(child.name));
            directory.add(
                child.name,
                Target {
                    ino: child.ino,
                    kind: child.kind,
                },
            );
            true
        });
        directory
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<Target> {
        let entry = self.entries.get(self.by_name.get(name)?)?;
        Some(Target {
            ino: entry.ino,
            kind: entry.kind,
        })
    }

    /// Entries behind `cookie`, with theirs.
    pub(super) fn behind(&self, cookie: u64) -> impl Iterator<Item = (u64, &Name)> {
        self.entries
            .range(cookie.saturating_add(1)..)
            .map(|(&cookie, name)| (cookie, name))
    }

    /// Adds a name whose cost has been charged, or lets it lead elsewhere; a new one is listed last.
    pub(super) fn put(&mut self, name: &[u8], target: Target) {
        let place = self.by_name.get(name).copied();
        match place.and_then(|cookie| self.entries.get_mut(&cookie)) {
            Some(entry) => {
                entry.ino = target.ino;
                entry.kind = target.kind;
            }
            None => self.add(name, target),
        }
    }

    fn add(&mut self, name: &[u8], target: Target) {
        let name: Arc<[u8]> = name.into();
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        self.by_name.insert(Arc::clone(&name), cookie);
        self.entries.insert(
            cookie,
            Name {
                name,
                ino: target.ino,
                kind: target.kind,
            },
        );
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some(cookie) = self.by_name.remove(name) {
            self.entries.remove(&cookie);
            self.store.bytes.refund(name_cost(name));
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let cost = self.entries.values().map(|entry| name_cost(&entry.name)).sum();
        self.store.bytes.refund(cost);
    }
}

/// All directories that differ from the image, and where directories are that have moved or are new.
pub(super) struct Names {
    lower: Arc<dyn ReadOnlyTree>,
    store: Arc<Store>,
    directories: HashMap<u64, Directory>,
    parents: HashMap<u64, u64>,
}

impl Names {
    pub(super) fn new(lower: Arc<dyn ReadOnlyTree>, store: Arc<Store>) -> Self {
        Self {
            lower,
            store,
            directories: HashMap::new(),
            parents: HashMap::new(),
        }
    }

    /// The directory, if it is the overlay's own.
    pub(super) fn own(&self, dir: u64) -> Option<&Directory> {
        self.directories.get(&dir)
    }

    /// The directory as the overlay's own.
    pub(super) fn change(&mut self, dir: u64) -> &mut Directory {
        let (lower, store) = (&*self.lower, &self.store);
        self.directories
            .entry(dir)
            .or_insert_with(|| Directory::from_image(dir, lower, store))
    }

    /// What `name` leads to in `dir`, which exists.
    pub(super) fn find(&self, dir: u64, name: &[u8]) -> Option<Target> {
        if let Some(directory) = self.own(dir) {
            return directory.get(name);
        }
        let ino = self.lower.lookup(dir, name)?;
        // The type of an inode never changes, so the image knows it even of one that was copied.
        Some(Target {
            ino,
            kind: self.lower.node(ino)?.kind,
        })
    }

    pub(super) fn is_empty(&self, dir: u64) -> bool {
        match self.own(dir) {
            Some(directory) => directory.is_empty(),
            None => {
                let mut empty = true;
                self.lower.children(dir, 0, &mut |_| {
                    empty = false;
                    false
                });
                empty
            }
        }
    }

    /// Where directory `dir` is.
    pub(super) fn parent(&self, dir: u64) -> Option<u64> {
        self.parents.get(&dir).copied().or_else(|| self.lower.parent(dir))
    }

    /// Notes that `dir` is in `parent` now.
    pub(super) fn set_parent(&mut self, dir: u64, parent: u64) {
        self.parents.insert(dir, parent);
    }

    /// Notes a new, empty directory.
    pub(super) fn add_directory(&mut self, dir: u64, parent: u64) {
        self.directories.insert(dir, Directory::empty(&self.store));
        self.parents.insert(dir, parent);
    }

    /// Notes that `dir` exists no more.
    pub(super) fn remove_directory(&mut self, dir: u64) {
        self.directories.remove(&dir);
        self.parents.remove(&dir);
    }

    /// Whether `dir` is `ancestor` or lies below it. An image whose parents run in circles says yes, so that
    /// nothing is moved into it.
    pub(super) fn is_within(&self, dir: u64, ancestor: u64, root: u64) -> bool {
        let mut at = dir;
        for _ in 0..DEPTH_MAX {
            if at == ancestor {
                return true;
            }
            if at == root {
                return false;
            }
            match self.parent(at) {
                Some(parent) => at = parent,
                None => return false,
            }
        }
        true
    }
}
