//! Page tables that no kernel would have.

use std::collections::BTreeMap;

use super::paging::Paging;
use super::place::{
    ALONE, CODE, CODE_PAGES, DATA, DATA_PAGES, HUGE, IN_LARGE, KERNEL_DIRECTORY, KERNEL_PDPT, MOST_PARTS,
    PAGE, PML4, TABLES, TABLES_END,
};
use crate::random::Random;

/// Bits of entries (Intel SDM vol. 3, 4.5).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;

/// Entries to be written, and where code pages were meant to be.
pub(super) struct Tables {
    pub(super) paging: Paging,
    /// By guest-physical address; each is [`Paging::entry_len`] bytes long.
    pub(super) entries: BTreeMap<u64, u64>,
    /// Linear pages and the guest-physical ones they map, whatever their rights.
    pub(super) pages: BTreeMap<u64, u64>,
    next: u64,
}

impl Tables {
    /// `wild` tables map themselves, the handler and everything else as well.
    pub(super) fn make_up(paging: Paging, random: &mut Random, wild: bool) -> Self {
        let mut tables = Self {
            paging,
            entries: BTreeMap::new(),
            pages: BTreeMap::new(),
            next: TABLES,
        };
        if paging == Paging::None {
            let code = CODE..CODE + CODE_PAGES as u64 * PAGE;
            tables
                .pages
                .extend(code.step_by(PAGE as usize).map(|page| (page, page)));
            return tables;
        }
        tables.map_kernel();
        for (first, count) in paging.runs() {
            for page in 0..count as u64 {
                let target = data_target(random, wild);
                // Data is no code that anything could be said about.
                let rights = rights(random, 12) | if wild { 0 } else { NO_EXECUTE };
                tables.map(first.wrapping_add(page * PAGE), 12, target | rights, random);
            }
        }
        for part in 0..MOST_PARTS {
            let first = paging.code(part);
            tables.map(first, 12, code_page(part) | rights(random, 24), random);
            let next = match random.below(8) {
                0 => data_target(random, wild) | NO_EXECUTE,
                1 => hole(random),
                2 => continue,
                _ => code_page(part + 1),
            };
            tables.map(first + PAGE, 12, next | rights(random, 12), random);
        }
        tables.map_large(paging.large(), random);
        if paging.is_long() {
            tables.map_large((HUGE, 30), random);
        }
        tables
    }

    /// A page of 2^`shift` bytes at `linear`, of which little or nothing is RAM.
    fn map_large(&mut self, (linear, shift): (u64, u32), random: &mut Random) {
        let at = if random.once_in(4) {
            large_hole(random)
        } else {
            IN_LARGE
        };
        let first = at & !((1 << shift) - 1);
        let target = match self.paging {
            // PSE-36: what does not fit into 32 bits stands in bits 13 and up (Intel SDM vol. 3, table 4-4).
            Paging::TwoLevel => first & 0xffc0_0000 | (first >> 32 & 0xff) << 13,
            _ => first,
        };
        self.map(linear, shift, target | rights(random, 12) | NO_EXECUTE, random);
    }

    /// The kernel's memory, in a large page.
    fn map_kernel(&mut self) {
        /// Present, writable; then large, global (Intel SDM vol. 3, 4.5).
        const TABLE: u64 = PRESENT | WRITABLE;
        const LARGE: u64 = TABLE | PAGE_SIZE | GLOBAL;
        let kernel = self.paging.kernel();
        let index = |shift: u32, bits: u32| kernel >> shift & ((1 << bits) - 1);
        let entries = match self.paging {
            Paging::FourLevel => vec![
                (PML4 + index(39, 9) * 8, KERNEL_PDPT | TABLE),
                (KERNEL_PDPT, KERNEL_DIRECTORY | TABLE),
                (KERNEL_DIRECTORY, LARGE),
            ],
            Paging::Pae => vec![
                // No rights in these (Intel SDM vol. 3, table 4-8).
                (PML4 + index(30, 2) * 8, KERNEL_DIRECTORY | PRESENT),
                (KERNEL_DIRECTORY + index(21, 9) * 8, LARGE),
            ],
            Paging::TwoLevel => vec![(PML4 + index(22, 10) * 4, LARGE)],
            Paging::None => Vec::new(),
        };
        self.entries.extend(entries);
    }

    /// Makes entries down to `entry`, which maps the page of 2^`shift` bytes at `linear`.
    fn map(&mut self, linear: u64, shift: u32, entry: u64, random: &mut Random) {
        let linear = self.paging.cut(linear);
        let mut table = PML4;
        for &(level, bits) in self.paging.levels() {
            let at = table + (linear >> level & ((1 << bits) - 1)) * self.paging.entry_len() as u64;
            if level == shift {
                let size = if shift > 12 { PAGE_SIZE } else { 0 };
                let attributes =
                    random.next() & (1 << 3 | 1 << 4 | if shift == 12 { 1 << 7 } else { 1 << 12 });
                self.entries.insert(at, entry | size | attributes);
                self.pages.insert(linear, entry & 0x3fff_ffff_f000);
                return;
            }
            table = match self.entries.get(&at) {
                Some(entry) => entry & 0xf_f000,
                None if self.next < TABLES_END => {
                    let next = self.next;
                    self.next += PAGE;
                    let rights = match self.paging {
                        Paging::Pae if level == 30 => directory_pointer_rights(random),
                        _ => rights(random, 80),
                    };
                    self.entries.insert(at, next | rights);
                    next
                }
                None => return,
            };
        }
    }
}

/// Mostly what lets an access through; each thing that does not comes once in `times`.
fn rights(random: &mut Random, times: usize) -> u64 {
    let unless = |random: &mut Random, bit: u64| if random.once_in(times) { 0 } else { bit };
    let mut entry = unless(random, PRESENT) | unless(random, WRITABLE) | unless(random, USER);
    if random.once_in(times) {
        entry |= NO_EXECUTE;
    }
    if random.once_in(times * 4) {
        // Reserved for physical addresses that are too wide.
        entry |= 1 << (46 + random.below(6));
    }
    entry | random.next() & (ACCESSED | DIRTY | GLOBAL | 0x7 << 9)
}

/// An entry at the root of PAE tables has no rights, and most of its bits are reserved (Intel SDM vol. 3, table 4-8).
fn directory_pointer_rights(random: &mut Random) -> u64 {
    match random.below(40) {
        0 => 0,
        1 => PRESENT | WRITABLE << random.below(8),
        _ => PRESENT | random.next() & (0x3 << 3 | 0x7 << 9),
    }
}

/// Where code of one part is; the last of these pages is the last before a hole.
pub(super) fn code_page(part: usize) -> u64 {
    CODE + ((CODE_PAGES - 1 - part) as u64) * PAGE
}

/// Nothing is there, in most cases.
fn hole(random: &mut Random) -> u64 {
    let places = [
        CODE + CODE_PAGES as u64 * PAGE,
        DATA - PAGE,
        ALONE - PAGE,
        ALONE + PAGE,
        IN_LARGE + 3 * PAGE,
        IN_LARGE - PAGE,
        TABLES_END,
        0xd000_0000,
        1 << 32,
        (1 << 46) - PAGE,
        (1 << 45) + 0x20_0000,
    ];
    random.pick(&places)
}

/// Nothing is in all the page, however large.
fn large_hole(random: &mut Random) -> u64 {
    random.pick(&[0x8000_0000, 0xc000_0000, 1 << 32, (1 << 46) - (1 << 30), 1 << 45])
}

fn data_target(random: &mut Random, wild: bool) -> u64 {
    if wild && random.once_in(3) {
        return match random.below(4) {
            0 => random.below((TABLES_END / PAGE) as usize) as u64 * PAGE,
            1 => CODE + random.below(CODE_PAGES) as u64 * PAGE,
            // The local APIC.
            2 => 0xfee0_0000,
            _ => TABLES + random.below(16) as u64 * PAGE,
        };
    }
    match random.below(8) {
        0 => hole(random),
        1 => ALONE,
        2 => IN_LARGE + random.below(3) as u64 * PAGE,
        _ => DATA + random.below(DATA_PAGES) as u64 * PAGE,
    }
}
