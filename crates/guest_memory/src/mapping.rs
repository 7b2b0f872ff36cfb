//! Host memory behind a region of guest RAM.

use std::io;
use std::ptr::null_mut;

use vm_memory::bitmap::{Bitmap, WithBitmapSlice};

use crate::watch::{RegionWatch, WatchSlice};

/// Size of the large pages that processors and systems have; both the host's and the guest's second-level page tables
/// can use one only where host address and guest-physical address agree below it.
pub(crate) const LARGE_PAGE: usize = 2 << 20;

/// Zeroed memory that is the host's to give when it is first touched. Unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: usize,
    len: usize,
    watch: RegionWatch,
}

impl Mapping {
    /// Maps `len` bytes for the guest-physical address `gpa`; both are multiples of a page.
    pub(crate) fn anonymous(gpa: u64, len: usize) -> io::Result<Self> {
        let spare = if len < LARGE_PAGE { 0 } else { LARGE_PAGE };
        let all = len.checked_add(spare).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let address = unsafe {
            libc::mmap(
                null_mut(),
                all,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut mapping = Self {
            start: address as usize,
            len: all,
            watch: RegionWatch::new(len),
        };
        if spare > 0 {
            let ahead = (gpa as usize).wrapping_sub(mapping.start) % LARGE_PAGE;
            mapping.cut(ahead, len);
        }
        Ok(mapping)
    }

    /// Its watched pages.
    pub(crate) fn watch(&self) -> &RegionWatch {
        &self.watch
    }

    /// Where it begins.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start as *mut u8
    }

    /// Unmaps all but the `len` bytes after the first `ahead`.
    fn cut(&mut self, ahead: usize, len: usize) {
        let behind = self.len - ahead - len;
        for (start, len) in [(self.start, ahead), (self.start + ahead + len, behind)] {
            unmap(start, len);
        }
        self.start += ahead;
        self.len = len;
    }
}

/// Unmaps a part of a [`Mapping`] that nobody has an address of.
fn unmap(start: usize, len: usize) {
    if len > 0 {
        // SAFETY: the range belongs to a mapping made above. Its owner is about to forget it, and gave addresses in
        // it only to a region of `vm-memory` that is gone, or none yet. What it fails for, there is not.
        unsafe { libc::munmap(start as *mut libc::c_void, len) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.start, self.len);
    }
}

/// `vm-memory` drops what it calls the bitmap together with its region, and has no other place for what must live as
/// long. What it tells of writes goes to whoever watches pages.
impl Bitmap for Mapping {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.watch.written(offset, len);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> WatchSlice<'_> {
        self.watch.slice(offset)
    }
}

impl<'a> WithBitmapSlice<'a> for Mapping {
    type S = WatchSlice<'a>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_agrees_with_the_guest_below_a_large_page() {
        for gpa in [0, 0x1000, 0x1_0020_0000] {
            let mapping = Mapping::anonymous(gpa, 3 * LARGE_PAGE).unwrap();

            assert_eq!(mapping.start as u64 % LARGE_PAGE as u64, gpa % LARGE_PAGE as u64);
            assert_eq!(mapping.len, 3 * LARGE_PAGE);
        }
    }

    #[test]
    fn anonymous_more_than_there_are_addresses_is_refused() {
        assert!(Mapping::anonymous(0, usize::MAX - 0xfff).is_err());
        assert!(Mapping::anonymous(0, 1 << 60).is_err());
    }
}
