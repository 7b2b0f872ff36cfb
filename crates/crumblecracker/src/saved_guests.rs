//! Guests that users put by, under the names they give them.
//!
//! Unlike the cache of booted guests these are the user's: none is removed but at his word, and one that is damaged or
//! does not fit is an error.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use saved_state::{Identity, Snapshot};

use crate::head_start::HeadStart;
use crate::names::is_name;
use crate::snapshot_cache::{Filling, Key, SnapshotCache};
use crate::{CachedSnapshot, Error, Library, Result};

/// The guests that were put by.
#[derive(Clone, Debug)]
pub struct SavedGuests {
    library: Library,
    folder: SnapshotCache,
    /// Whether they stay, so that it is worth gathering what later guests start quicker with.
    stay: bool,
}

impl Library {
    /// The guests that were put by with [`Instance::save`](crate::Instance::save).
    pub fn saved_guests(&self) -> SavedGuests {
        self.guests_in("guests", true)
    }

    /// The guests that are put by for as long as forks are made of them.
    pub(crate) fn forked_guests(&self) -> SavedGuests {
        self.guests_in("forks", false)
    }

    fn guests_in(&self, folder: &str, stay: bool) -> SavedGuests {
        SavedGuests {
            library: self.clone(),
            folder: SnapshotCache::in_folder(self.cache_folder().join(folder), u64::MAX),
            stay,
        }
    }
}

impl SavedGuests {
    /// All of them, the one made last first; the key is the name.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn entries(&self) -> Result<Vec<CachedSnapshot>> {
        self.folder.entries()
    }

    /// Removes one. Guests that were started from it go on.
    ///
    /// # Errors
    /// [`Error::NoSavedGuest`], [`Error::SavedGuestName`], [`Error::File`].
    pub fn remove(&self, name: &str) -> Result<()> {
        match self.folder.remove(&checked(name)?.0)? {
            true => Ok(()),
            false => Err(Error::NoSavedGuest(name.to_owned())),
        }
    }

    /// Writes one once more, apart from all others: what it has in common with the guest it came from is copied.
    ///
    /// # Errors
    /// [`Error::NoSavedGuest`], [`Error::SavedGuestName`]; one that is damaged; a full disk. It stays as it was then.
    pub fn flatten(&self, name: &str) -> Result<()> {
        let snapshot = self.open(name)?;
        let identity = snapshot.manifest().identity.clone();
        let filling = self.folder.rewrite(&checked(name)?, identity)?;
        let mut filling = filling.ok_or_else(|| Error::SavedGuestBusy(name.to_owned()))?;
        machine::flatten(&snapshot, &mut filling.writer)?;
        filling.replace()
    }

    /// Where their images are.
    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    /// Begins to write one.
    pub(crate) fn begin(&self, name: &str, identity: Identity) -> Result<Filling> {
        let filling = self.folder.try_fill(&checked(name)?, identity)?;
        filling.ok_or_else(|| Error::SavedGuestExists(name.to_owned()))
    }

    /// Begins to write one that is to be lent. What others lent who were killed is removed.
    pub(crate) fn begin_unnamed(&self, identity: Identity) -> Result<Filling> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        self.folder.sweep_lent()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut filling = self.begin(&format!("{}-{number}", std::process::id()), identity)?;
        filling.writer.force_nothing();
        Ok(filling)
    }

    /// What the first guest that is taken up from one leaves for the next.
    pub(crate) fn head_start(&self, name: &str) -> Result<Option<HeadStart>> {
        let key = checked(name)?;
        Ok(self.stay.then(|| HeadStart::new(&self.folder, &key)))
    }

    /// Opens one; what is in it was not looked at, but units are what was written.
    pub(crate) fn open(&self, name: &str) -> Result<Snapshot> {
        let path = self.folder.path(&checked(name)?);
        if fs::symlink_metadata(&path).is_err() {
            return Err(Error::NoSavedGuest(name.to_owned()));
        }
        self.folder.check_owner()?;
        Ok(Snapshot::open(&path)?)
    }
}

/// Names are those of folders, and none that the cache uses itself.
fn checked(name: &str) -> Result<Key> {
    match is_name(name) && !SnapshotCache::uses(name) {
        true => Ok(Key::named(name)),
        false => Err(Error::SavedGuestName(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_not_the_folders_own() {
        for name in ["a", "web.1", "A_b-c"] {
            assert!(checked(name).is_ok(), "{name}");
        }
        for name in ["", "..", "a/b", "new-a", "old-a", "lock-a"] {
            assert!(checked(name).is_err(), "{name}");
        }
    }

    #[test]
    fn guest_is_there_until_it_is_removed_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::open(Some(folder.path())).unwrap();
        let saved = library.saved_guests();
        assert!(matches!(saved.open("one"), Err(Error::NoSavedGuest(_))));
        saved.begin("one", Identity::new()).unwrap().finish().unwrap();

        assert!(saved.open("one").is_ok());
        assert!(matches!(
            saved.begin("one", Identity::new()),
            Err(Error::SavedGuestExists(_))
        ));
        assert_eq!(saved.entries().unwrap().len(), 1);
        saved.remove("one").unwrap();
        assert!(matches!(saved.remove("one"), Err(Error::NoSavedGuest(_))));
    }
}
