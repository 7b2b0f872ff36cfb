//! An entry on its way into its place.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use saved_state::SnapshotWriter;

use super::{Key, SnapshotCache};
use crate::Result;

/// An entry that is being filled. Dropped before [`Filling::finish`] it leaves nothing.
pub(crate) struct Filling {
    pub(crate) writer: SnapshotWriter,
    pub(super) cache: SnapshotCache,
    pub(super) key: Key,
    pub(super) lock: File,
}

/// An entry that goes when this is dropped.
pub(crate) struct Lent {
    cache: SnapshotCache,
    key: Key,
    _lock: File,
}

impl Filling {
    /// Puts the entry into its place and makes room for it.
    ///
    /// # Errors
    /// A full disk.
    pub(crate) fn finish(self) -> Result<()> {
        self.writer.commit()?;
        self.cache.prune(self.cache.limit).map(drop)
    }

    /// Puts the entry into the place of the one it was made of.
    ///
    /// # Errors
    /// A full disk.
    pub(crate) fn replace(self) -> Result<()> {
        // One of both is in the place at any time. The other is swept like what others left.
        let exchange = |from: &Path, to: &Path| {
            renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE)?;
            fs::remove_dir_all(from)
        };
        Ok(self.writer.commit_by(exchange)?)
    }

    /// Puts the entry into its place for as long as what is returned lives. It need not outlive a crash of the host.
    ///
    /// # Errors
    /// A full disk.
    pub(crate) fn lend(self) -> Result<Lent> {
        self.writer.commit()?;
        Ok(Lent {
            cache: self.cache,
            key: self.key,
            _lock: self.lock,
        })
    }
}

impl Lent {
    /// What it is called in its folder.
    pub(crate) fn name(&self) -> &str {
        &self.key.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.cache.forget(&self.key);
        // One that stays is swept.
        let _ = fs::remove_file(self.cache.lock_path(&self.key.0));
    }
}
