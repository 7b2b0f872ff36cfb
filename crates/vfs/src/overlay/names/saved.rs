//! The state of the directories that differ from the image.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use saved_state::{Error, record, require};

use super::{Directory, FIRST_COOKIE, Name, Names, name_cost};
use crate::attr::FileKind;
use crate::overlay::store::Store;
use crate::protocol::ROOT_ID;
use crate::read_only::ReadOnlyTree;
use crate::saved::{Bytes, Room, require_ascending};

/// Largest cookie: what the guest's kernel has left of 64 bits, and so much that none is ever reached.
const COOKIE_MAX: u64 = 1 << 62;

record! {
    /// [`Names`].
    pub(in crate::overlay) struct SavedNames {
        /// Ascending by number.
        1 directories: Vec<SavedDirectory>,
        2 parents: BTreeMap<u64, u64>,
    }
}

record! {
    /// [`Directory`].
    pub(in crate::overlay) struct SavedDirectory {
        1 ino: u64,
        /// Ascending by cookie.
        2 entries: Vec<SavedName>,
        3 next_cookie: u64,
    }
}

record! {
    /// [`Name`].
    pub(in crate::overlay) struct SavedName {
        1 cookie: u64,
        2 name: Bytes,
        3 ino: u64,
        4 kind: FileKind,
    }
}

impl Directory {
    fn save(&self, ino: u64, room: &mut Room) -> Result<SavedDirectory, crate::Error> {
        let Self {
            // Follows from the entries.
            by_name: _,
            entries,
            next_cookie,
            store: _,
        } = self;
        room.take(1, 0)?;
        let mut saved = Vec::with_capacity(entries.len());
        for (&cookie, Name { name, ino, kind }) in entries {
            room.take(1, name.len())?;
            saved.push(SavedName {
                cookie,
                name: Bytes(name.to_vec()),
                ino: *ino,
                kind: *kind,
            });
        }
        Ok(SavedDirectory {
            ino,
            entries: saved,
            next_cookie: *next_cookie,
        })
    }
}

impl SavedDirectory {
    fn into_directory(self, store: &Arc<Store>) -> Result<Directory, Error> {
        let known = FIRST_COOKIE..=COOKIE_MAX;
        require(
            known.contains(&self.next_cookie),
            "the next cookie of a directory",
        )?;
        require_ascending(
            self.entries.iter().map(|entry| entry.cookie),
            "the order of a directory",
        )?;
        let mut directory = Directory::empty(store);
        for entry in self.entries {
            let there = (FIRST_COOKIE..self.next_cookie).contains(&entry.cookie);
            require(there, "the cookie of a name")?;
            let name: Arc<[u8]> = entry.name.into_name()?.into();
            store.bytes.charge_always(name_cost(&name));
            let (ino, kind) = (entry.ino, entry.kind);
            let twice = directory.by_name.insert(Arc::clone(&name), entry.cookie);
            directory.entries.insert(entry.cookie, Name { name, ino, kind });
            require(twice.is_none(), "a name that is there twice")?;
        }
        directory.next_cookie = self.next_cookie;
        Ok(directory)
    }
}

impl Names {
    pub(in crate::overlay) fn save(&self, room: &mut Room) -> Result<SavedNames, crate::Error> {
        let Self {
            lower: _,
            store: _,
            directories,
            parents,
        } = self;
        let mut own: Vec<_> = directories.iter().collect();
        own.sort_unstable_by_key(|(ino, _)| **ino);
        let directories = own
            .into_iter()
            .map(|(&ino, directory)| directory.save(ino, room))
            .collect::<Result<_, _>>()?;
        room.take(parents.len() as u64, 0)?;
        Ok(SavedNames {
            directories,
            parents: parents.iter().map(|(&dir, &parent)| (dir, parent)).collect(),
        })
    }
}

impl SavedNames {
    /// The names, all of which must lead to an inode of the kind that `kind_of` says.
    pub(in crate::overlay) fn into_names(
        self,
        lower: &Arc<dyn ReadOnlyTree>,
        store: &Arc<Store>,
        kind_of: &dyn Fn(u64) -> Option<FileKind>,
    ) -> Result<Names, Error> {
        let is_directory = |ino| kind_of(ino) == Some(FileKind::Directory);
        require_ascending(
            self.directories.iter().map(|directory| directory.ino),
            "the order of directories",
        )?;
        let mut names = Names::new(Arc::clone(lower), Arc::clone(store));
        for (dir, parent) in self.parents {
            require(
                dir != ROOT_ID && is_directory(dir) && is_directory(parent),
                "where a directory is",
            )?;
            names.set_parent(dir, parent);
        }
        names.require_no_circle()?;
        for saved in self.directories {
            let ino = saved.ino;
            require(is_directory(ino), "the number of a directory")?;
            let directory = saved.into_directory(store)?;
            for entry in directory.entries.values() {
                require(kind_of(entry.ino) == Some(entry.kind), "what a name leads to")?;
                // A directory has one name.
                let here = entry.kind != FileKind::Directory || names.parent(entry.ino) == Some(ino);
                require(here, "where a directory is")?;
            }
            names.directories.insert(ino, directory);
        }
        Ok(names)
    }
}

impl Names {
    /// That directories which have moved or are new lie below the root or, removed, below nothing.
    fn require_no_circle(&self) -> Result<(), Error> {
        let mut known: HashSet<u64> = HashSet::from([ROOT_ID]);
        for &dir in self.parents.keys() {
            let mut way = HashSet::new();
            let mut at = dir;
            while !known.contains(&at) {
                require(way.insert(at), "directories that lie in each other")?;
                let Some(parent) = self.parent(at) else { break };
                at = parent;
            }
            known.extend(way);
        }
        Ok(())
    }
}
