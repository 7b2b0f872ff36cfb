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
use std::sync::atomic::{AtomicU64, Ordering};

/// What an image may at most be, so that a hostile one cannot take all time, memory or disk there is. The
/// defaults are far beyond what images have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one layer, and of all layers of an image together; default 4 million.
    pub entries: u64,
    /// Bytes of the names, link targets and attributes of one layer, and of all layers of an image together,
    /// with 49 more for each entry; default 512 MiB. They are held in memory.
    pub metadata_bytes: u64,
    /// Bytes of one uncompressed archive, and of the files in it, holes included; default 64 GiB.
    pub layer_bytes: u64,
    /// Uncompressed bytes per compressed byte once a layer is past 1 GiB or an image past 8 GiB; default 400.
    pub ratio: u64,
    /// Directories looked into to follow the names and links of all layers of an image; default 134 million.
    pub steps: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 4_000_000,
            metadata_bytes: 512 << 20,
            layer_bytes: 64 << 30,
            ratio: 400,
            steps: 1 << 27,
        }
    }
}

/// Uncompressed bytes below which [`Limits::ratio`] is not looked at: of a layer, and of an image, some of whose
/// layers may be all zeros and come first.
const LAYER_FLOOR: u64 = 1 << 30;
const IMAGE_FLOOR: u64 = 8 << 30;

/// Bytes before and after decompression.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    compressed: AtomicU64,
    plain: AtomicU64,
}

impl Unpacked {
    /// Counts more bytes; whether all of them together are too many for what they came from.
    fn is_bomb(&self, compressed: u64, plain: u64, floor: u64, limits: &Limits) -> bool {
        let compressed = compressed + self.compressed.fetch_add(compressed, Ordering::Relaxed);
        let plain = plain + self.plain.fetch_add(plain, Ordering::Relaxed);
        plain > floor && plain / limits.ratio > compressed
    }
}

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
