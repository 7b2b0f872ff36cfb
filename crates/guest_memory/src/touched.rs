//! Which pages a guest used, and having them in advance.
//!
//! A guest that goes on from a snapshot uses much the same pages as the one before it, and every first store to a page of a
//! mapped file costs a fault of the host's. Whoever knows the pages can have them together, on a thread of its own.

use std::ops::Range;

use crate::{Extent, GuestMemory, PAGE_SIZE, RamRegion};

/// The most pieces that are told apart: each is a mapping of the host's, of which Linux gives a process 65,530
/// (`vm.max_map_count`).
const MOST_APART: u64 = 32 << 10;

impl GuestMemory {
    /// The pages that were written since this RAM was made or mapped, as ranges of guest-physical addresses; none where
    /// the host does not tell.
    pub fn touched(&self) -> Vec<Range<u64>> {
        self.own_pages().unwrap_or_default()
    }

    /// The pages that were used in any way since, written ones among them; none where the host does not tell. Pages of an
    /// image that lie beside used ones may be among them, unless [`GuestMemory::tell_pages_apart`] was there before.
    pub fn used(&self) -> Vec<Range<u64>> {
        self.pages(host_os::used_pages).unwrap_or_default()
    }

    /// Sees to it that [`GuestMemory::used`] tells one page from the next, in RAM that was just mapped from `extents` and
    /// that nobody has used. It takes some milliseconds. What is no RAM is passed over, and so is what the host cannot do.
    pub fn tell_pages_apart(&self, extents: &[Extent]) {
        let total: u64 = extents.iter().map(|extent| extent.len / PAGE_SIZE).sum();
        let piece = total.div_ceil(MOST_APART).max(1) * PAGE_SIZE;
        for extent in extents {
            let end = extent.gpa.saturating_add(extent.len);
            if let Some(address) = self.host_address(&(extent.gpa..end))
                && host_os::tell_pages_apart(address, extent.len as usize, piece as usize).is_err()
            {
                return;
            }
        }
    }

    /// The written ones, or why the host does not tell.
    pub(crate) fn own_pages(&self) -> Result<Vec<Range<u64>>, host_os::Error> {
        self.pages(host_os::own_pages)
    }

    fn pages(
        &self,
        which: impl Fn(usize, usize) -> Result<Vec<Range<usize>>, host_os::Error>,
    ) -> Result<Vec<Range<u64>>, host_os::Error> {
        let mut all = Vec::new();
        for region in self.regions() {
            let pages = which(region.host_address, region.len as usize)?.into_iter();
            all.extend(pages.map(|pages| region.gpa + pages.start as u64..region.gpa + pages.end as u64));
        }
        // Regions need not come in order.
        all.sort_by_key(|pages| pages.start);
        Ok(all)
    }

    /// Those of `pages` that are RAM: whole pages, of one region each.
    pub fn only_ram(&self, pages: &[Range<u64>]) -> Vec<Range<u64>> {
        let is_ram = |pages: &&Range<u64>| self.host_address(pages).is_some();
        pages.iter().filter(is_ram).cloned().collect()
    }

    /// Where the host has pages, which must be whole ones of one region, and at least one.
    fn host_address(&self, pages: &Range<u64>) -> Option<usize> {
        let inside = |region: &RamRegion| {
            pages.start >= region.gpa && pages.start < pages.end && pages.end - region.gpa <= region.len
        };
        let aligned = pages.start.is_multiple_of(PAGE_SIZE) && pages.end.is_multiple_of(PAGE_SIZE);
        let region = self.regions().into_iter().find(inside).filter(|_| aligned)?;
        Some(region.host_address + (pages.start - region.gpa) as usize)
    }

    /// Has pages ready that will be written; nothing in them changes. What is no RAM is passed over, and so is what the
    /// host cannot do.
    pub fn bring_in(&self, pages: &[Range<u64>]) {
        for pages in pages {
            if let Some(address) = self.host_address(pages)
                && host_os::bring_in(address, (pages.end - pages.start) as usize).is_err()
            {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    const REGIONS: [(u64, u64); 2] = [(0, 0x10_0000), (0x100_0000, 0x8000)];

    #[test]
    fn touched_names_what_was_written_and_brought_in() {
        let memory = GuestMemory::anonymous(&REGIONS).unwrap();
        memory.write_obj(1_u8, GuestAddress(0x3010)).unwrap();

        memory.bring_in(&[0x100_1000..0x100_2000, 0x100_2000..0x100_3000]);

        assert_eq!(memory.touched(), [0x3000..0x4000, 0x100_1000..0x100_3000]);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x3010)).unwrap(), 1);
    }

    #[test]
    fn bring_in_of_what_is_no_ram_does_nothing() {
        let memory = GuestMemory::anonymous(&REGIONS).unwrap();

        memory.bring_in(&[
            0xf_f000..0x10_1000,
            0x20_0000..0x20_1000,
            0x100_0000..u64::MAX,
            0x3000..0x3000,
            0x100..0x1000,
            Range {
                start: 0x5000,
                end: 0x4000,
            },
        ]);

        assert_eq!(memory.touched(), []);
    }
}
