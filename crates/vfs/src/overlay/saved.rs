//! The state of an overlay: all in which it differs from its image, and the uses that the guest has.
//!
//! What a changed directory holds is saved whole, as it is held, so there are no whiteouts and no marks; inode numbers
//! and cookies stay. Contents are a stream apart from the record, so that no state is larger than its names and
//! attributes. The image is not saved: who restores knows which it is, and is told when it cannot be.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use saved_state::{Unit, record, require};

use super::Overlay;
use super::inode::{InodeTable, SavedInodes};
use super::names::{Names, SavedNames};
use crate::error::Error;
use crate::protocol::ROOT_ID;
use crate::saved::Room;
use crate::sync::{read, write};

const SCHEMA: u16 = 1;
/// How many inodes a guest may have made in its life: more than it can, and so few that numbers never run out.
const MADE_MAX: u64 = 1 << 56;

#[cfg(test)]
mod tests;

record! {
    /// [`Overlay`].
    struct SavedOverlay {
        /// The image's largest inode number.
        1 max_inode: u64,
        2 next_ino: u64,
        3 inodes: SavedInodes,
        4 names: SavedNames,
    }
}

impl Overlay {
    pub(super) fn save_state(&self, contents: &mut dyn Write) -> Result<Unit, Error> {
        let Self {
            lower,
            // Where blocks lie and how many are in use follows from the files.
            store: _,
            names,
            inodes,
            next_ino,
        } = self;
        let mut room = Room::new();
        let saved = SavedOverlay {
            max_inode: lower.max_inode(),
            next_ino: next_ino.load(Ordering::Relaxed),
            inodes: inodes.save(&mut room, contents)?,
            names: read(names).save(&mut room)?,
        };
        Ok(Unit::new(SCHEMA, &saved))
    }

    pub(super) fn restore_state(&self, unit: &Unit, contents: &mut dyn Read) -> Result<(), Error> {
        let saved: SavedOverlay = unit.decode(SCHEMA)?;
        let max_inode = self.lower.max_inode();
        if saved.max_inode != max_inode {
            return Err(Error::OtherImage);
        }
        let first = max_inode.saturating_add(1);
        let numbers = first..=first.saturating_add(MADE_MAX);
        require(numbers.contains(&saved.next_ino), "the next inode number")?;
        // What was there makes room.
        *write(&self.names) = Names::new(Arc::clone(&self.lower), Arc::clone(&self.store));
        self.inodes
            .replace(InodeTable::new(Arc::clone(&self.lower), Arc::clone(&self.store)));
        let inodes = saved
            .inodes
            .into_table(saved.next_ino, &self.lower, &self.store, contents)?;
        let kind_of = |ino| inodes.find(ino).ok().map(|found| found.kind());
        let names = saved.names.into_names(&self.lower, &self.store, &kind_of)?;
        let has_root = inodes.find(ROOT_ID).is_ok_and(|root| root.is_linked());
        require(has_root, "the root directory")?;
        // Nothing can go wrong any more.
        *write(&self.names) = names;
        self.inodes.replace(inodes);
        self.next_ino.store(saved.next_ino, Ordering::Relaxed);
        Ok(())
    }
}
