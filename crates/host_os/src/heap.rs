//! How the process's memory grows.

use crate::sys;

/// Lets all threads allocate from one heap that grows in large steps: for programs whose work is mostly that of one
/// thread. Of use before the first thread starts; without effect where the system's allocator has no such choice.
pub fn prefer_one_heap() {
    sys::prefer_one_heap();
}
