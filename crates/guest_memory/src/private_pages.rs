//! Which pages of this process's memory are its own: of a private mapping of a file, those that were written to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::PAGE_SIZE;

/// Bytes of an entry.
const ENTRY: usize = 8;
/// Bits of an entry (Documentation/admin-guide/mm/pagemap.rst): there is a page; it is in swap; it is a file's, or shared.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// The kernel's account of this process's pages.
pub(crate) struct PrivatePages(File);

impl PrivatePages {
    /// Opens the account; systems without one have nothing to tell.
    pub(crate) fn open() -> Option<Self> {
        File::open("/proc/self/pagemap").ok().map(Self)
    }

    /// For each page of the `len` bytes at `address`, whether this process has a copy of its own.
    pub(crate) fn at(&self, address: usize, len: usize) -> io::Result<Vec<bool>> {
        let page = PAGE_SIZE as usize;
        let mut entries = vec![0; len / page * ENTRY];
        self.0
            .read_exact_at(&mut entries, (address / page * ENTRY) as u64)?;
        let is_private = |entry: &[u8]| {
            let mut bytes = [0; ENTRY];
            bytes.copy_from_slice(entry);
            let entry = u64::from_ne_bytes(bytes);
            entry & SWAPPED != 0 || entry & PRESENT != 0 && entry & OF_FILE == 0
        };
        Ok(entries.chunks_exact(ENTRY).map(is_private).collect())
    }
}
