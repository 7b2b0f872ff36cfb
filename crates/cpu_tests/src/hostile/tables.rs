//! Page tables that no kernel would have.

use std::collections::BTreeMap;

use super::place::{
    ALONE, CODE, CODE_LINEAR, CODE_PAGES, CODE_STRIDE, DATA, DATA_PAGES, HUGE, IN_LARGE, LARGE, MOST_PARTS,
    PAGE, PML4, RUNS, TABLES, TABLES_END,
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

/// Words of memory to be written, and where code pages were meant to be.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) words: BTreeMap<u64, u64>,
    /// Linear pages and the guest-physical ones they map, whatever their rights.
    pub(super) pages: BTreeMap<u64, u64>,
    next: u64,
}

impl Tables {
    /// `wild` tables map themselves, the handler and everything else as well.
    pub(super) fn make_up(random: &mut Random, wild: bool) -> Self {
        let mut tables = Self {
            next: TABLES,
            ..Self::default()
        };
        for (first, count) in RUNS {
            for page in 0..count as u64 {
                let target = data_target(random, wild);
                // Data is no code that anything could be said about.
                let rights = rights(random, 12) | if wild { 0 } else { NO_EXECUTE };
                tables.map(first.wrapping_add(page * PAGE), 12, target | rights, random);
            }
        }
        for part in 0..MOST_PARTS {
            let first = CODE_LINEAR + part as u64 * CODE_STRIDE;
            tables.map(first, 12, code_page(part) | rights(random, 24), random);
            let next = match random.below(8) {
                0 => data_target(random, wild) | NO_EXECUTE,
                1 => hole(random),
                2 => continue,
                _ => code_page(part + 1),
            };
            tables.map(first + PAGE, 12, next | rights(random, 12), random);
        }
        let large = if random.once_in(4) {
            large_hole(random)
        } else {
            IN_LARGE
        };
        tables.map(
            LARGE,
            21,
            large & !0x1f_ffff | rights(random, 12) | NO_EXECUTE,
            random,
        );
        let huge = if random.once_in(4) {
            large_hole(random)
        } else {
            IN_LARGE
        };
        tables.map(
            HUGE,
            30,
            huge & !0x3fff_ffff | rights(random, 12) | NO_EXECUTE,
            random,
        );
        tables
    }

    /// Makes entries down to `entry`, which maps the page of 2^`shift` bytes at `linear`.
    fn map(&mut self, linear: u64, shift: u32, entry: u64, random: &mut Random) {
        let mut table = PML4;
        for level in [39, 30, 21, 12] {
            let at = table + (linear >> level & 0x1ff) * 8;
            if level == shift {
                let size = if shift > 12 { PAGE_SIZE } else { 0 };
                let attributes =
                    random.next() & (1 << 3 | 1 << 4 | if shift == 12 { 1 << 7 } else { 1 << 12 });
                self.words.insert(at, entry | size | attributes);
                self.pages.insert(linear, entry & 0x3fff_ffff_f000);
                return;
            }
            table = match self.words.get(&at) {
                Some(entry) => entry & 0xf_f000,
                None if self.next < TABLES_END => {
                    let next = self.next;
                    self.next += PAGE;
                    self.words.insert(at, next | rights(random, 80));
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
