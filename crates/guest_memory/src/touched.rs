//! Which pages a guest wrote to, and having them in advance.
//!
//! A guest that goes on from a snapshot writes much the same pages as the one before it, and every first store to a page
//! of a mapped file costs a fault of the host's. Whoever knows the pages can have them together, on a thread of its own.

use std::ops::Range;

use crate::{GuestMemory, PAGE_SIZE};

impl GuestMemory {
    /// The pages that were written since this RAM was made or mapped, as ranges of guest-physical addresses; none where
    /// the host does not tell.
    pub fn touched(&self) -> Vec<Range<u64>> {
        self.own_pages().unwrap_or_default()
    }

    /// The same, or why the host does not tell.
    pub(crate) fn own_pages(&self) -> Result<Vec<Range<u64>>, host_os::Error> {
        let mut touched = Vec::new();
        for region in self.regions() {
            let own = host_os::own_pages(region.host_address, region.len as usize)?;
            touched.extend(
                own.into_iter()
                    .map(|pages| region.gpa + pages.start as u64..region.gpa + pages.end as u64),
            );
        }
        // Regions need not come in order.
        touched.sort_by_key(|pages| pages.start);
        Ok(touched)
    }

    /// Has pages ready that will be written; nothing in them changes. What is no RAM is passed over, and so is what the
    /// host cannot do.
    pub fn bring_in(&self, pages: &[Range<u64>]) {
        let regions = self.regions();
        for pages in pages {
            let region = regions.iter().find(|region| {
                pages.start >= region.gpa && pages.start < pages.end && pages.end - region.gpa <= region.len
            });
            let aligned = pages.start % PAGE_SIZE == 0 && pages.end % PAGE_SIZE == 0;
            if let Some(region) = region.filter(|_| aligned) {
                let address = region.host_address + (pages.start - region.gpa) as usize;
                if host_os::bring_in(address, (pages.end - pages.start) as usize).is_err() {
                    return;
                }
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
