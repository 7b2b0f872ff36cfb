//! Host memory behind a region of guest RAM.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use vm_memory::bitmap::{Bitmap, WithBitmapSlice};

use crate::watch::{RegionWatch, WatchSlice};

/// Size of the large pages that processors and systems have; both the host's and the guest's second-level page tables
/// can use one only where host address and guest-physical address agree below it.
pub(crate) const LARGE_PAGE: usize = 2 << 20;

/// Addresses before and behind RAM at which nothing is ever mapped, at the least: more than any single access reaches
/// over. A bound that is forgotten somewhere ends the process, and shows nobody else's memory.
const GUARD: usize = 64 << 10;

/// Zeroed memory that is the host's to give when it is first touched, between addresses that cannot be accessed.
/// Unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: usize,
    watch: RegionWatch,
    /// With the guards.
    reserved: (usize, usize),
}

impl Mapping {
    /// Maps `len` bytes for the guest-physical address `gpa`; both are multiples of a page.
    pub(crate) fn anonymous(gpa: u64, len: usize) -> io::Result<Self> {
        let spare = if len < LARGE_PAGE { 0 } else { LARGE_PAGE };
        let all = len
            .checked_add(spare + 2 * GUARD)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let address = unsafe {
            libc::mmap(
                null_mut(),
                all,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = address as usize + GUARD;
        let ahead = if spare == 0 {
            0
        } else {
            (gpa as usize).wrapping_sub(first) % LARGE_PAGE
        };
        let mapping = Self {
            start: first + ahead,
            watch: RegionWatch::new(len),
            reserved: (address as usize, all),
        };
        // SAFETY: the range is a part of the mapping above, that nobody has an address of yet.
        let failed = unsafe {
            libc::mprotect(
                mapping.start as *mut libc::c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mapping)
    }

    /// Puts `len` bytes of `file` from `offset` on to `at`, instead of the zeroes there, of which nothing was used yet:
    /// pages come from the file when they are touched, and copies of those that are written stay here. All three are
    /// multiples of a page.
    pub(crate) fn overlay(&self, at: usize, len: usize, file: &File, offset: u64) -> io::Result<()> {
        let inside = at
            .checked_add(len)
            .is_some_and(|end| end as u64 <= self.watch.len());
        let offset = libc::off_t::try_from(offset);
        let (true, Ok(offset)) = (inside && len > 0, offset) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: the range is a part of this mapping, and is one again afterwards, with the same rights. Whoever has
        // its address sees bytes change, as RAM's do.
        let address = unsafe {
            libc::mmap(
                (self.start + at) as *mut libc::c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Its watched pages.
    pub(crate) fn watch(&self) -> &RegionWatch {
        &self.watch
    }

    /// Where it begins.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start as *mut u8
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (start, len) = self.reserved;
        // SAFETY: the range is the mapping made above. Its owner goes, and gave addresses in it only to a region of
        // `vm-memory` that is gone, or none yet. What it fails for, there is not.
        unsafe { libc::munmap(start as *mut libc::c_void, len) };
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
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn anonymous_lies_between_guards() {
        for len in [4096, 3 * LARGE_PAGE] {
            let mapping = Mapping::anonymous(0x1000, len).unwrap();

            let rights = rights_around(mapping.start, len);

            assert_eq!(rights, ["---p", "rw-p", "---p"]);
        }
    }

    /// As the host has them for the bytes before, in and behind a mapping.
    #[cfg(target_os = "linux")]
    fn rights_around(start: usize, len: usize) -> [String; 3] {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        [start - GUARD, start, start + len + GUARD - 1].map(|address| {
            let line = maps.lines().find(|line| {
                let (from, rest) = line.split_once('-').unwrap();
                let (to, _) = rest.split_once(' ').unwrap();
                let [from, to] = [from, to].map(|edge| usize::from_str_radix(edge, 16).unwrap());
                (from..to).contains(&address)
            });
            line.unwrap().split(' ').nth(1).unwrap().to_owned()
        })
    }

    #[test]
    fn anonymous_more_than_there_are_addresses_is_refused() {
        assert!(Mapping::anonymous(0, usize::MAX - 0xfff).is_err());
        assert!(Mapping::anonymous(0, 1 << 60).is_err());
    }
}
