//! The C library's allocator.

/// What the heap grows by at the least: address space, which costs memory when it is touched.
#[cfg(target_env = "gnu")]
const STEP: libc::c_int = 8 << 20;
/// What must be free at its end for the heap to shrink.
#[cfg(target_env = "gnu")]
const SHRINK: libc::c_int = 64 << 20;

/// glibc gives each thread a heap that grows by single pages, each with a change of their protection.
#[cfg(target_env = "gnu")]
pub(crate) fn prefer_one_heap() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TOP_PAD, STEP),
        (libc::M_TRIM_THRESHOLD, SHRINK),
    ] {
        // SAFETY: sets a number of the allocator's, under its own lock. What is refused stays as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn prefer_one_heap() {}
