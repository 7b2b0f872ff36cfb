//! The state of the inodes that differ from the image, and of the uses that the guest has.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, PoisonError, RwLock};

use saved_state::{record, require};

use super::{Body, Found, INODE_COST, Inode, InodeTable, SHARDS, Shard, State};
use crate::attr::{FileKind, Timestamp};
use crate::error::Error;
use crate::overlay::contents::{Contents, SavedContents};
use crate::overlay::store::Store;
use crate::protocol::{PERMISSION_BITS, ROOT_ID, SYMLINK_MAX};
use crate::read_only::ReadOnlyTree;
use crate::saved::{Bytes, Room, require_ascending};
use crate::sync::{lock, read, write};

record! {
    /// [`InodeTable`].
    pub(in crate::overlay) struct SavedInodes {
        /// Ascending by number.
        1 own: Vec<SavedInode>,
        /// Ascending.
        2 gone: Vec<u64>,
        3 uses: BTreeMap<u64, u64>,
    }
}

record! {
    /// [`Inode`].
    pub(in crate::overlay) struct SavedInode {
        1 ino: u64,
        2 kind: FileKind,
        3 mode: u32,
        4 uid: u32,
        5 gid: u32,
        6 rdev: u32,
        7 nlink: u32,
        8 atime: Timestamp,
        9 mtime: Timestamp,
        10 ctime: Timestamp,
        11 btime: Option<Timestamp>,
        12 xattrs: BTreeMap<Bytes, Bytes>,
        /// Of a symbolic link.
        13 target: Option<Bytes>,
        /// Of a regular file.
        14 contents: Option<SavedContents>,
    }
}

impl Inode {
    fn save(&self, room: &mut Room, out: &mut dyn Write) -> Result<SavedInode, Error> {
        let Self {
            ino,
            kind,
            state,
            store: _,
        } = self;
        let state = read(state);
        let State {
            mode,
            uid,
            gid,
            rdev,
            nlink,
            atime,
            mtime,
            ctime,
            btime,
            xattrs,
            body,
            // Follows from the rest.
            charged: _,
        } = &*state;
        room.take(4, 0)?;
        for (name, value) in xattrs {
            room.take(1, name.len() + value.len())?;
        }
        let (target, contents) = match body {
            Body::File(contents) => (None, Some(contents.save(room, out)?)),
            Body::Symlink(target) => {
                room.take(0, target.len())?;
                (Some(Bytes(target.clone())), None)
            }
            Body::Nothing => (None, None),
        };
        let xattrs = xattrs
            .iter()
            .map(|(name, value)| (Bytes(name.clone()), Bytes(value.clone())));
        Ok(SavedInode {
            ino: *ino,
            kind: *kind,
            mode: *mode,
            uid: *uid,
            gid: *gid,
            rdev: *rdev,
            nlink: *nlink,
            atime: *atime,
            mtime: *mtime,
            ctime: *ctime,
            btime: *btime,
            xattrs: xattrs.collect(),
            target,
            contents,
        })
    }
}

impl SavedInode {
    /// The contents of a regular file, with what of the image still shows.
    fn take_contents(
        &mut self,
        lower: &dyn ReadOnlyTree,
        store: &Arc<Store>,
        input: &mut dyn Read,
    ) -> Result<Option<Contents>, Error> {
        let ino = self.ino;
        let from_image = ino <= lower.max_inode();
        if from_image && lower.node(ino).is_none_or(|node| node.kind != self.kind) {
            return Err(Error::NotInImage { ino });
        }
        let fits = self.contents.is_some() == (self.kind == FileKind::Regular);
        require(fits, "what a file holds")?;
        let Some(contents) = self.contents.take() else {
            return Ok(None);
        };
        // A file that shows nothing of the image any more needs nothing of it.
        let image = if from_image && contents.shows_image() {
            lower
                .content(ino)
                .map_err(|source| Error::ImageContents { ino, source })?
        } else {
            None
        };
        contents.into_contents(store, image, input).map(Some)
    }

    /// The inode, whose cost is bounded by what was saved and never refused.
    fn into_inode(
        self,
        contents: Option<Contents>,
        from_image: bool,
        store: &Arc<Store>,
    ) -> Result<Arc<Inode>, saved_state::Error> {
        let Self {
            ino,
            kind,
            mode,
            uid,
            gid,
            rdev,
            nlink,
            atime,
            mtime,
            ctime,
            btime,
            xattrs,
            target,
            contents: _,
        } = self;
        require(mode & !PERMISSION_BITS == 0, "the mode of a file")?;
        require(
            target.is_some() == (kind == FileKind::Symlink),
            "the target of a symbolic link",
        )?;
        let xattrs: BTreeMap<_, _> = xattrs
            .into_iter()
            .map(|(name, value)| (name.0, value.0))
            .collect();
        let mut texts: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if let Some(target) = target.as_ref().filter(|_| !from_image) {
            require(target.0.len() <= SYMLINK_MAX, "the target of a symbolic link")?;
            texts += target.0.len();
        }
        let body = match (contents, target) {
            (Some(contents), _) => Body::File(contents),
            (None, Some(target)) => Body::Symlink(target.0),
            (None, None) => Body::Nothing,
        };
        let charged = INODE_COST + texts as u64;
        store.inodes.charge_always(1);
        store.bytes.charge_always(charged);
        let state = State {
            mode,
            uid,
            gid,
            rdev,
            nlink,
            atime,
            mtime,
            ctime,
            btime,
            xattrs,
            body,
            charged,
        };
        Ok(Arc::new(Inode {
            ino,
            kind,
            state: RwLock::new(state),
            store: Arc::clone(store),
        }))
    }
}

impl InodeTable {
    pub(in crate::overlay) fn save(
        &self,
        room: &mut Room,
        out: &mut dyn Write,
    ) -> Result<SavedInodes, Error> {
        let Self {
            lower: _,
            store: _,
            own,
            uses,
        } = self;
        let (mut inodes, mut gone) = (Vec::new(), Vec::new());
        for shard in own {
            let shard = read(shard);
            let Shard {
                inodes: own,
                gone: missing,
            } = &*shard;
            inodes.extend(own.values().cloned());
            gone.extend(missing.iter().copied());
        }
        inodes.sort_unstable_by_key(|inode| inode.ino);
        gone.sort_unstable();
        room.take(gone.len() as u64, 0)?;
        let own = inodes
            .iter()
            .map(|inode| inode.save(room, out))
            .collect::<Result<_, _>>()?;
        let mut counted = BTreeMap::new();
        for uses in uses {
            let uses = lock(uses);
            room.take(uses.len() as u64, 0)?;
            counted.extend(uses.iter().map(|(&ino, &count)| (ino, count)));
        }
        Ok(SavedInodes {
            own,
            gone,
            uses: counted,
        })
    }

    /// Takes the place of all that this table has.
    pub(in crate::overlay) fn replace(&self, with: Self) {
        for (shard, new) in self.own.iter().zip(with.own) {
            let new = new.into_inner().unwrap_or_else(PoisonError::into_inner);
            *write(shard) = new;
        }
        for (uses, new) in self.uses.iter().zip(with.uses) {
            *lock(uses) = new.into_inner().unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl SavedInodes {
    /// The table, all of whose own numbers lie below `next_ino`.
    pub(in crate::overlay) fn into_table(
        self,
        next_ino: u64,
        lower: &Arc<dyn ReadOnlyTree>,
        store: &Arc<Store>,
        input: &mut dyn Read,
    ) -> Result<InodeTable, Error> {
        require_ascending(self.own.iter().map(|inode| inode.ino), "the order of inodes")?;
        require_ascending(self.gone.iter().copied(), "the order of missing inodes")?;
        let table = InodeTable::new(Arc::clone(lower), Arc::clone(store));
        // Contents first: they never take more than the budget, as the rest may.
        let mut inodes = Vec::new();
        for mut saved in self.own {
            require((ROOT_ID..next_ino).contains(&saved.ino), "the number of an inode")?;
            let contents = saved.take_contents(&**lower, store, input)?;
            inodes.push((saved, contents));
        }
        for (saved, contents) in inodes {
            let from_image = saved.ino <= lower.max_inode();
            table.add(&saved.into_inode(contents, from_image, store)?);
        }
        for ino in self.gone {
            let there = ino != ROOT_ID && ino <= lower.max_inode();
            require(there, "the number of a missing inode")?;
            match table.find(ino) {
                Ok(Found::Image(..)) => {}
                Ok(Found::Own(_)) => return Err(saved_state::Error::Value("a missing inode").into()),
                Err(_) => return Err(Error::NotInImage { ino }),
            }
            write(table.shard(ino)).gone.insert(ino);
        }
        for (ino, count) in self.uses {
            if table.find(ino).is_err() {
                return Err(Error::NotInImage { ino });
            }
            require(count > 0, "the uses of an inode")?;
            lock(&table.uses[ino as usize % SHARDS]).insert(ino, count);
        }
        Ok(table)
    }
}
