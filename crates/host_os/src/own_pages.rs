//! Which pages of a mapping became this process's own, and having them in advance.

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

/// Makes `len` bytes of private memory at `address` this process's own as a store of what is there already would, all at
/// once: cheaper than page by page, and on a thread of its own while others still do something else.
///
/// # Errors
/// The system cannot, or has no more memory; some pages may have come.
pub fn bring_in(address: usize, len: usize) -> Result<(), Error> {
    sys::bring_in(address, len)
}
