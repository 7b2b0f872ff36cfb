//! Remembered translations, in the form that translated code looks them up.

use super::{PAGE_OFFSET, PAGE_SIZE};
use crate::cpu::TlbSet;

/// Entries of one set; a power of two.
pub(crate) const ENTRIES: usize = 256;
/// Entries for code.
const CODE_ENTRIES: usize = 64;
/// A tag that no page has.
const NONE: u64 = u64::MAX;

/// One page. Linear address + `addend` is the host's address.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Entry {
    /// The linear address of the page, where loads may go straight to RAM.
    pub(crate) read_tag: u64,
    /// The same for stores: the page is writable, marked dirty, and holds no decoded code.
    pub(crate) write_tag: u64,
    /// Host address minus linear address.
    pub(crate) addend: u64,
    /// Guest-physical address of the page; bit 0 says that the translation is global.
    gpa: u64,
}

const EMPTY: Entry = Entry {
    read_tag: NONE,
    write_tag: NONE,
    addend: 0,
    gpa: 0,
};

/// A page of code.
#[derive(Clone, Copy, Debug)]
struct CodeEntry {
    tag: u64,
    gpa: u64,
    set: TlbSet,
}

const EMPTY_CODE: CodeEntry = CodeEntry {
    tag: NONE,
    gpa: 0,
    set: TlbSet::User,
};

/// All remembered translations of one vCPU.
#[repr(C)]
pub(crate) struct Tlb {
    /// By [`TlbSet`]; an entry lies at the low bits of its page number.
    pub(crate) data: [[Entry; ENTRIES]; 3],
    code: [CodeEntry; CODE_ENTRIES],
}

fn slot(linear: u64) -> usize {
    (linear / PAGE_SIZE) as usize % ENTRIES
}

fn code_slot(linear: u64) -> usize {
    (linear / PAGE_SIZE) as usize % CODE_ENTRIES
}

impl Tlb {
    pub(crate) fn new() -> Self {
        Self {
            data: [[EMPTY; ENTRIES]; 3],
            code: [EMPTY_CODE; CODE_ENTRIES],
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
        self.data[set as usize][slot(linear)] = Entry {
            read_tag: page,
            write_tag: if writable { page } else { NONE },
            addend: (host as u64 & !PAGE_OFFSET).wrapping_sub(page),
            gpa: gpa & !PAGE_OFFSET | u64::from(global),
        };
    }

    /// Guest-physical address of code, where it is known.
    #[inline]
    pub(crate) fn find_code(&self, set: TlbSet, linear: u64) -> Option<u64> {
        let entry = &self.code[code_slot(linear)];
        (entry.tag == linear & !PAGE_OFFSET && entry.set == set).then_some(entry.gpa | linear & PAGE_OFFSET)
    }

    pub(crate) fn fill_code(&mut self, set: TlbSet, linear: u64, gpa: u64) {
        self.code[code_slot(linear)] = CodeEntry {
            tag: linear & !PAGE_OFFSET,
            gpa: gpa & !PAGE_OFFSET,
            set,
        };
    }

    /// Forgets everything; with `keep_global` all but global translations.
    pub(crate) fn flush(&mut self, keep_global: bool) {
        for entry in self.data.as_flattened_mut() {
            if !keep_global || entry.gpa & 1 == 0 {
                (entry.read_tag, entry.write_tag) = (NONE, NONE);
            }
        }
        self.code = [EMPTY_CODE; CODE_ENTRIES];
    }

    /// Forgets one page.
    pub(crate) fn flush_page(&mut self, linear: u64) {
        for set in &mut self.data {
            let entry = &mut set[slot(linear)];
            (entry.read_tag, entry.write_tag) = (NONE, NONE);
        }
        self.code[code_slot(linear)] = EMPTY_CODE;
    }

    /// Sends stores the long way again: to every page, or to one guest-physical page.
    pub(crate) fn forget_writes(&mut self, gpa: Option<u64>) {
        for entry in self.data.as_flattened_mut() {
            if gpa.is_none_or(|gpa| entry.gpa & !PAGE_OFFSET == gpa & !PAGE_OFFSET) {
                entry.write_tag = NONE;
            }
        }
    }
}
