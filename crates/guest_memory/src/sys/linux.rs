//! Linux.

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Asks for large pages where `memory` is touched first. A kernel without them goes on with small ones.
pub(crate) fn prefer_large_pages(memory: &VolatileSlice<'_, impl BitmapSlice>) {
    // Fails where the kernel has no large pages, and then nothing is lost but time.
    let _ = advise(memory, libc::MADV_HUGEPAGE);
}

/// Brings all of `file`, a part of a file's mapping, into memory. `false` where that fails or the kernel cannot tell
/// (before 5.14): then touching the mapping could end the process.
pub(crate) fn read_ahead(file: &VolatileSlice<'_>) -> bool {
    advise(file, libc::MADV_POPULATE_READ)
}

fn advise(slice: &VolatileSlice<'_, impl BitmapSlice>, advice: libc::c_int) -> bool {
    // SAFETY: the range is a part of a mapping that the slice keeps, and neither advice changes what the mapping
    // holds or that it is mapped.
    unsafe { libc::madvise(slice.ptr_guard().as_ptr().cast_mut().cast(), slice.len(), advice) == 0 }
}
