//! Which pages of a mapping are in use, which became this process's own, and having them in advance.

use std::ops::Range;

use crate::{Error, sys};

/// The pages among `len` bytes at `address` that this process has for itself, because it wrote to them: as ranges of
/// offsets, in ascending order. Both numbers are multiples of a page, and all of it is mapped.
///
/// # Errors
/// The system does not tell.
pub fn own_pages(address: usize, len: usize) -> Result<Vec<Range<usize>>, Error> {
    sys::own_pages(address, len)
}

/// The same for all pages that this process has used, to read as well. A system enters a file's pages into its tables
/// together with their neighbours, so more are told unless [`tell_pages_apart`] was there before.
///
/// # Errors
/// The system does not tell.
pub fn used_pages(address: usize, len: usize) -> Result<Vec<Range<usize>>, Error> {
    sys::used_pages(address, len)
}

/// Makes the system take each `piece` of `len` bytes at `address` by itself: using one says nothing of its neighbours from
/// now on. Costs a call for every other piece, and the system's memory for each. All three are multiples of a page, and the
/// range is of one file's.
///
/// # Errors
/// The system has no more of its own memory for it; some may be apart then.
pub fn tell_pages_apart(address: usize, len: usize, piece: usize) -> Result<(), Error> {
    sys::tell_pages_apart(address, len, piece)
}

/// Makes `len` bytes of private memory at `address` this process's own as a store of what is there already would, all at
/// once: cheaper than page by page, and on a thread of its own while others still do something else.
///
/// # Errors
/// The system cannot, or has no more memory; some pages may have come.
pub fn bring_in(address: usize, len: usize) -> Result<(), Error> {
    sys::bring_in(address, len)
}
