//! Remembered translations, in the form that translated code looks them up.

use std::collections::BTreeSet;

use super::{PAGE_OFFSET, PAGE_SIZE};
use crate::cpu::TlbSet;

/// Entries of one set; a power of two.
pub(crate) const ENTRIES: usize = 2048;
/// Entries for code.
const CODE_ENTRIES: usize = 256;

/// One page.
///
/// Translated code computes `linear ^ tag`: for an access inside the page that is the offset in it, for every other
/// address it is 4096 or more.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Entry {
    /// The linear address of the page, where loads may go straight to RAM.
    pub(crate) read_tag: u64,
    /// The same for stores: the page is writable, marked dirty, and holds no decoded code.
    pub(crate) write_tag: u64,
    /// Where the host has the page.
    pub(crate) host: u64,
    /// Guest-physical address of the page; bit 0 says that the translation is global.
    gpa: u64,
}

/// A page of code.
#[derive(Clone, Copy, Debug)]
struct CodeEntry {
    tag: u64,
    gpa: u64,
    set: TlbSet,
}

/// Sizes of pages larger than an entry's, as logarithms.
const LARGE_SHIFTS: [u8; 3] = [21, 22, 30];
/// The most large pages that are told apart; for more, everything is forgotten.
const MOST_LARGE: usize = 4096;

const EMPTY_CODE: CodeEntry = CodeEntry {
    tag: u64::MAX,
    gpa: 0,
    set: TlbSet::User,
};

/// All remembered translations of one vCPU.
#[repr(C)]
pub(crate) struct Tlb {
    /// By [`TlbSet`]; an entry lies at the low bits of its page number.
    pub(crate) data: [[Entry; ENTRIES]; 3],
    code: [CodeEntry; CODE_ENTRIES],
    /// Slots that were filled with translations that are not global, since those were last forgotten.
    filled: Vec<(u8, u16)>,
    /// Pages larger than an entry's that entries were made from, since all were forgotten: their first address, and
    /// the logarithm of their size.
    large: BTreeSet<(u64, u8)>,
    /// Supervisor code was seen on a page that is not global or that lies in the lower half, as no usual kernel has it:
    /// then what concerns user pages may concern that code as well.
    unusual_supervisor_code: bool,
    /// What was forgotten, for whoever remembers more by linear address.
    pub(crate) generations: Generations,
}

/// Counts of what was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generations {
    /// Translations of any kind.
    pub(crate) all: u64,
    /// Those that user code may use.
    pub(crate) user: u64,
}

fn slot(linear: u64) -> usize {
    (linear / PAGE_SIZE) as usize % ENTRIES
}

fn code_slot(linear: u64) -> usize {
    (linear / PAGE_SIZE) as usize % CODE_ENTRIES
}

/// Where kernels are.
fn in_upper_half(linear: u64) -> bool {
    linear >> 63 != 0
}

/// A tag that no address of this slot has: that of a page of its neighbour.
const fn no_tag(slot: usize) -> u64 {
    (slot as u64 ^ 1) * PAGE_SIZE
}

static EMPTY: [Entry; ENTRIES] = {
    let mut set = [Entry {
        read_tag: 0,
        write_tag: 0,
        host: 0,
        gpa: 0,
    }; ENTRIES];
    let mut slot = 0;
    while slot < ENTRIES {
        (set[slot].read_tag, set[slot].write_tag) = (no_tag(slot), no_tag(slot));
        slot += 1;
    }
    set
};

impl Tlb {
    pub(crate) fn new() -> Self {
        Self {
            data: [EMPTY; 3],
            code: [EMPTY_CODE; CODE_ENTRIES],
            filled: Vec::new(),
            large: BTreeSet::new(),
            unusual_supervisor_code: false,
            generations: Generations { all: 1, user: 1 },
        }
    }

    /// Guest-physical address for a load, where it is known.
    #[inline]
    pub(crate) fn find_read(&self, set: TlbSet, linear: u64) -> Option<u64> {
        let entry = &self.data[set as usize][slot(linear)];
        (entry.read_tag == linear & !PAGE_OFFSET).then_some(entry.gpa & !PAGE_OFFSET | linear & PAGE_OFFSET)
    }

    /// Guest-physical address for a store, where it is known and needs no care.
    #[inline]
    pub(crate) fn find_write(&self, set: TlbSet, linear: u64) -> Option<u64> {
        let entry = &self.data[set as usize][slot(linear)];
        (entry.write_tag == linear & !PAGE_OFFSET).then_some(entry.gpa & !PAGE_OFFSET | linear & PAGE_OFFSET)
    }

    /// Remembers where the page of `linear` is: `gpa` in RAM, which the host has at `host`.
    pub(crate) fn fill(
        &mut self,
        set: TlbSet,
        linear: u64,
        gpa: u64,
        host: usize,
        writable: bool,
        global: bool,
    ) {
        let page = linear & !PAGE_OFFSET;
        let slot = slot(linear);
        if !global {
            self.filled.push((set as u8, slot as u16));
        }
        self.data[set as usize][slot] = Entry {
            read_tag: page,
            write_tag: if writable { page } else { no_tag(slot) },
            host: host as u64 & !PAGE_OFFSET,
            gpa: gpa & !PAGE_OFFSET | u64::from(global),
        };
    }

    /// Guest-physical address of code, where it is known.
    #[inline]
    pub(crate) fn find_code(&self, set: TlbSet, linear: u64) -> Option<u64> {
        let entry = &self.code[code_slot(linear)];
        (entry.tag == linear & !PAGE_OFFSET && entry.set == set).then_some(entry.gpa | linear & PAGE_OFFSET)
    }

    pub(crate) fn fill_code(&mut self, set: TlbSet, linear: u64, gpa: u64, global: bool) {
        self.unusual_supervisor_code |= set != TlbSet::User && !(global && in_upper_half(linear));
        self.code[code_slot(linear)] = CodeEntry {
            tag: linear & !PAGE_OFFSET,
            gpa: gpa & !PAGE_OFFSET,
            set,
        };
    }

    /// Forgets everything; with `keep_global` all but global translations.
    pub(crate) fn flush(&mut self, keep_global: bool) {
        self.code = [EMPTY_CODE; CODE_ENTRIES];
        self.generations.user += 1;
        if !keep_global || self.unusual_supervisor_code {
            self.generations.all += 1;
        }
        if !keep_global {
            // Code is looked up anew, and shows again whether it is unusual.
            self.unusual_supervisor_code = false;
            self.filled.clear();
            self.large.clear();
            self.data = [EMPTY; 3];
            return;
        }
        for (set, slot) in std::mem::take(&mut self.filled) {
            let (set, slot) = (usize::from(set), usize::from(slot));
            let entry = &mut self.data[set][slot];
            if entry.gpa & 1 == 0 {
                (entry.read_tag, entry.write_tag) = (no_tag(slot), no_tag(slot));
            }
        }
    }

    /// Forgets one page.
    pub(crate) fn flush_page(&mut self, linear: u64) {
        let slot = slot(linear);
        for set in &mut self.data {
            (set[slot].read_tag, set[slot].write_tag) = (no_tag(slot), no_tag(slot));
        }
        self.code[code_slot(linear)] = EMPTY_CODE;
        if !self.large.is_empty() {
            self.flush_large_pages(linear);
        }
    }

    /// Remembers that entries inside the page of 2^`shift` bytes at `linear` are parts of that.
    pub(crate) fn note_large_page(&mut self, linear: u64, shift: u8) {
        if self.large.len() == MOST_LARGE {
            self.flush(false);
        }
        self.large.insert((linear >> shift << shift, shift));
    }

    /// Forgets all of the large pages that `linear` was seen in: however many entries one has, it is one translation
    /// (Intel SDM vol. 3, 4.10.2.3 and 4.10.4.1).
    fn flush_large_pages(&mut self, linear: u64) {
        for shift in LARGE_SHIFTS {
            let first = linear >> shift << shift;
            if !self.large.remove(&(first, shift)) {
                continue;
            }
            let inside = |address: u64| address >> shift << shift == first;
            for set in &mut self.data {
                for (slot, entry) in set.iter_mut().enumerate() {
                    if inside(entry.read_tag) {
                        (entry.read_tag, entry.write_tag) = (no_tag(slot), no_tag(slot));
                    }
                }
            }
            for entry in &mut self.code {
                if inside(entry.tag) {
                    *entry = EMPTY_CODE;
                }
            }
            self.generations.user += 1;
            self.generations.all += 1;
        }
    }

    /// Sends stores the long way again: to every page, or to one guest-physical page.
    pub(crate) fn forget_writes(&mut self, gpa: Option<u64>) {
        for set in &mut self.data {
            for (slot, entry) in set.iter_mut().enumerate() {
                if gpa.is_none_or(|gpa| entry.gpa & !PAGE_OFFSET == gpa & !PAGE_OFFSET) {
                    entry.write_tag = no_tag(slot);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_entry_is_hit_by_no_address_of_its_slot() {
        let tlb = Tlb::new();
        for (slot, entry) in tlb.data[0].iter().enumerate() {
            for upper in [0, 1, u64::MAX >> 20, 1 << 43] {
                let linear = (upper << 11 | slot as u64) << 12;
                assert!(linear ^ entry.read_tag >= PAGE_SIZE);
            }
        }
    }

    #[test]
    fn flush_keeping_global_forgets_only_the_others() {
        let mut tlb = Tlb::new();
        tlb.fill(TlbSet::User, 0x5000, 0x1000, 0x7000, true, false);
        tlb.fill(TlbSet::User, 0x6000, 0x2000, 0x8000, true, true);
        tlb.flush(true);
        assert_eq!(tlb.find_read(TlbSet::User, 0x5008), None);
        assert_eq!(tlb.find_write(TlbSet::User, 0x6008), Some(0x2008));
    }

    #[test]
    fn forget_writes_of_a_page_leaves_loads() {
        let mut tlb = Tlb::new();
        tlb.fill(TlbSet::Supervisor, 0x5000, 0x1000, 0x7000, true, false);
        tlb.forget_writes(Some(0x1abc));
        assert_eq!(tlb.find_write(TlbSet::Supervisor, 0x5000), None);
        assert_eq!(tlb.find_read(TlbSet::Supervisor, 0x5000), Some(0x1000));
    }

    #[test]
    fn flush_page_inside_a_large_page_forgets_all_of_that() {
        let mut tlb = Tlb::new();
        for page in [0x20_0000, 0x20_5000, 0x40_0000] {
            tlb.fill(TlbSet::User, page, page, 0x7000, true, false);
        }
        tlb.note_large_page(0x20_0000, 21);

        tlb.flush_page(0x20_9000);

        let found = [0x20_0000, 0x20_5000, 0x40_0000].map(|page| tlb.find_read(TlbSet::User, page));
        assert_eq!(found, [None, None, Some(0x40_0000)]);
    }
}
