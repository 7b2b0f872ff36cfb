//! The record format of snapshots, their manifest, and the folder they lie in.
//!
//! **Knows:** how a value becomes bytes and back ([`Saved`], [`record!`](crate::record)), what a manifest says, and
//! how a snapshot's folder is written so that it is whole or not there.
//! **Must never know:** what is saved: CPUs, devices, guest RAM, images.
//!
//! # The folder
//! ```text
//! manifest   JSON: format, architecture, identity, units with schema, place, length and SHA-256, other files
//! units      one record per unit, one after the other
//! …          guest RAM, in files by the names the manifest gives
//! ```
//! It is made under another name beside its place, every file is forced to the disk, then it is renamed: a reader
//! finds all of it or nothing. Bytes that come from such a folder are foreign: lengths are capped before anything is
//! allocated, digests are compared before anything is decoded, and nothing here panics on them.
#![forbid(unsafe_code)]

mod digested;
mod error;
mod folder;
mod manifest;
mod record;
mod value;
mod writer;

pub use error::{Error, require};
pub use folder::Snapshot;
pub use manifest::{FileEntry, Identity, Manifest, UnitEntry};
pub use record::{FieldsReader, FieldsWriter};
pub use value::{Decoder, Saved};
pub use writer::{GrowingFile, SnapshotWriter};

/// One unit's state: what a device or a CPU is, apart from what it is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Which layout `bytes` has; a unit's own count.
    pub schema: u16,
    /// The record.
    pub bytes: Vec<u8>,
}

impl Unit {
    /// Encodes `state` as of layout `schema`.
    pub fn new(schema: u16, state: &impl Saved) -> Self {
        Self {
            schema,
            bytes: state.to_bytes(),
        }
    }

    /// The state of what has none.
    pub fn empty() -> Self {
        Self::new(1, &Empty)
    }

    /// That this is the state of what has none.
    ///
    /// # Errors
    /// What is there all the same.
    pub fn expect_empty(&self) -> Result<(), Error> {
        self.decode::<Empty>(1).map(drop)
    }

    /// Decodes the state, whose newest layout is `newest`.
    ///
    /// # Errors
    /// [`Error::Schema`] for a layout from the future, and whatever is wrong with the bytes.
    pub fn decode<T: Saved>(&self, newest: u16) -> Result<T, Error> {
        if self.schema == 0 || self.schema > newest {
            return Err(Error::Schema {
                found: self.schema,
                newest,
            });
        }
        T::from_bytes(&self.bytes)
    }
}

/// A record without fields.
struct Empty;

impl Saved for Empty {
    fn encode(&self, out: &mut Vec<u8>) {
        FieldsWriter::new(out).end();
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        FieldsReader::new("Empty", input)?.end()?;
        Ok(Self)
    }
}
