//! The state of the server: what FUSE_INIT settled, and its tree's.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use saved_state::{Unit, record, require};

use super::init::wanted;
use super::{READY, Server};
use crate::error::Error;
use crate::saved::Bytes;

const SCHEMA: u16 = 1;

record! {
    /// [`Server`].
    struct SavedServer {
        /// Flags and [`READY`].
        1 connection: u64,
        /// Layout of the tree's state.
        2 tree_schema: u16,
        3 tree: Bytes,
    }
}

impl Server {
    /// The state of the connection and of the tree: node ids, uses, open files, and in an overlay all that the guest
    /// has changed. Contents of changed files go to `contents`, in one go from where it stands: whole blocks of 4 KiB,
    /// without those that hold only zeros. One file can take several servers' contents, one after the other.
    ///
    /// Not to be called while a request is served.
    ///
    /// # Errors
    /// [`Error::StateTooLarge`] from 1 GiB of names and attributes on, [`Error::SaveContents`], [`Error::Scratch`], and
    /// [`Error::ShareState`], which names the share. The server goes on as it was.
    pub fn save(&self, contents: &mut dyn Write) -> Result<Unit, Error> {
        let Self { tree, connection } = self;
        let state = tree.save(contents)?;
        let saved = SavedServer {
            connection: connection.load(Ordering::Acquire),
            tree_schema: state.schema,
            tree: Bytes(state.bytes),
        };
        Ok(Unit::new(SCHEMA, &saved))
    }

    /// Goes on with what [`Server::save`] gave, in place of what the tree held: the guest's kernel need not notice.
    /// Of `contents` exactly the bytes are read that were written. The tree must be of the same kind, an overlay over
    /// the same image, a share of the same directory. Files of a share that are no longer where they were, or not the
    /// same any more, answer ESTALE.
    ///
    /// Not to be called while a request is served.
    ///
    /// # Errors
    /// What is wrong with the state or the contents, or keeps them from being held. After an error the server is of no
    /// use but to be restored once more or to be reset.
    pub fn restore(&self, unit: &Unit, contents: &mut dyn Read) -> Result<(), Error> {
        let saved: SavedServer = unit.decode(SCHEMA)?;
        let known = READY | wanted(&self.tree.cache_policy());
        require(
            saved.connection == 0 || saved.connection & READY != 0 && saved.connection & !known == 0,
            "the flags of the FUSE connection",
        )?;
        let state = Unit {
            schema: saved.tree_schema,
            bytes: saved.tree.0,
        };
        self.tree.restore(&state, contents)?;
        self.connection.store(saved.connection, Ordering::Release);
        Ok(())
    }
}
