//! From a layer's archive to a list of entries and a page-aligned contents file, in one pass.
//!
//! *Archive* (OCI image specification, "Image Layer Filesystem Changeset"): a tar stream in the ustar, GNU
//! or PAX forms, plain or compressed with gzip or zstd, told apart by their first bytes.
//! *Names*: a leading `/` is dropped and `.` and inner `..` are resolved, as Docker does; a name or a hard
//! link that leaves the root is refused, and so are components longer than 255 bytes and names longer than
//! 4095. Targets of symbolic links are kept as they are: only the guest follows them.
//! *Limits*: see [`Limits`].

pub(crate) mod contents;
pub(crate) mod decompress;
pub(crate) mod entries;
mod header;
pub(crate) mod ingest;
mod pax;
mod sparse;
pub(crate) mod tar;

use std::io;

/// What a layer may at most be. The defaults are far beyond what images have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one layer; default 4 million.
    pub entries: u64,
    /// Bytes of one uncompressed archive, and of the longest (sparse) file in it; default 64 GiB.
    pub layer_bytes: u64,
    /// Uncompressed bytes per compressed byte once an archive is past 1 GiB; default 400.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 4_000_000,
            layer_bytes: 64 << 30,
            ratio: 400,
        }
    }
}

/// Uncompressed bytes below which [`Limits::ratio`] is not looked at.
pub(crate) const RATIO_FLOOR: u64 = 1 << 30;

/// Why a layer's bytes could not be taken in.
#[derive(Debug)]
pub(crate) enum Fault {
    /// They could not be read.
    Input(io::Error),
    /// What became of them could not be written.
    Output(io::Error),
    /// They are malformed, malicious or beyond the limits.
    Bad(String),
}

impl Fault {
    /// A fault of a named entry.
    fn of_entry(path: &[u8], reason: impl std::fmt::Display) -> Fault {
        let shown = String::from_utf8_lossy(&path[..path.len().min(200)]);
        Fault::Bad(format!("entry `{}`: {reason}", shown.escape_debug()))
    }
}
