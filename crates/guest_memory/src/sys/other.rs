//! Systems that have no word for these wishes.

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

pub(crate) fn prefer_large_pages(_memory: &VolatileSlice<'_, impl BitmapSlice>) {}

/// Whether the mapped part of a file is sure to be readable: nobody can tell.
pub(crate) fn read_ahead(_file: &VolatileSlice<'_>) -> bool {
    false
}
