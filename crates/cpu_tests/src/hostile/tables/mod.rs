//! Page tables that no kernel would have.
//!
//! All kinds of paging get the same plan of linear addresses, each as far as it reaches, and the same hostility: what
//! their entries look like is their own files' business.

mod four_level;
mod legacy;
mod pae;

use std::collections::BTreeMap;

use super::place::{
    ALONE, CODE, CODE_LINEAR, CODE_PAGES, CODE_STRIDE, DATA, DATA_PAGES, IN_LARGE, MOST_PARTS, PAGE, RUNS,
    SAME, TABLES, TABLES_END,
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

/// One kind of paging.
struct Format {
    /// Where the first table is.
    root: u64,
    /// The tables behind it.
    tables: std::ops::Range<u64>,
    /// From the root down: the lowest bit of the index, and the number of its bits.
    levels: &'static [(u32, u32)],
    /// Bytes of an entry.
    entry: u64,
    /// Sizes of large pages, as logarithms, with where they are.
    large: &'static [(u64, u32)],
    /// The highest linear address.
    last: u64,
    /// An entry of the last level or of a large page, of what a four-level table would have.
    page: fn(u64, u32, &mut Random) -> u64,
    /// An entry of this level that leads to another table.
    table: fn(u64, u32) -> u64,
}

/// The address of any kind of entry that leads to a table that was made up.
const TABLE_ADDRESS: u64 = 0xf_f000;

/// Memory to be written, by guest-physical address and with its length, and what was meant by it.
#[derive(Default)]
pub(super) struct Tables {
    words: BTreeMap<u64, (u64, u64)>,
    /// Linear pages and the guest-physical ones they map, whatever their rights, of four-level tables.
    pub(super) pages: BTreeMap<u64, u64>,
}

/// How hostile tables are.
#[derive(Clone, Copy)]
pub(super) struct Hostility {
    /// They map themselves, the handler and everything else as well.
    pub(super) wild: bool,
    /// Some pages lie at the same linear address, so that programs can go from mode to mode.
    pub(super) mixed: bool,
}

impl Tables {
    /// Four-level tables, and where programs go from mode to mode those of the other kinds.
    pub(super) fn make_up(random: &mut Random, how: Hostility) -> Self {
        let mut tables = Self::default();
        let mut filling = Filling::of(&four_level::FORMAT, &mut tables);
        filling.all(random, how);
        tables.pages = filling.pages;
        if how.mixed {
            for format in [&legacy::FORMAT, &pae::FORMAT] {
                Filling::of(format, &mut tables).all(random, how);
            }
        }
        tables
    }

    /// Bytes to be written, and where.
    pub(super) fn words(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.words
            .iter()
            .map(|(at, (word, len))| (*at, word.to_le_bytes()[..*len as usize].to_vec()))
    }
}

/// One kind of tables that is being made.
struct Filling<'a> {
    format: &'static Format,
    words: &'a mut BTreeMap<u64, (u64, u64)>,
    pages: BTreeMap<u64, u64>,
    next: u64,
}

impl<'a> Filling<'a> {
    fn of(format: &'static Format, tables: &'a mut Tables) -> Self {
        Self {
            format,
            words: &mut tables.words,
            pages: BTreeMap::new(),
            next: format.tables.start,
        }
    }

    fn all(&mut self, random: &mut Random, how: Hostility) {
        if how.mixed {
            self.same(random);
        }
        for (first, count) in RUNS {
            for page in 0..count as u64 {
                let target = data_target(random, how.wild);
                // Data is no code that anything could be said about.
                let rights = rights(random, 12) | if how.wild { 0 } else { NO_EXECUTE };
                self.map(first.wrapping_add(page * PAGE), 12, target | rights, random);
            }
        }
        for part in 0..MOST_PARTS {
            let first = CODE_LINEAR + part as u64 * CODE_STRIDE;
            self.map(first, 12, code_page(part) | rights(random, 24), random);
            let next = match random.below(8) {
                0 => data_target(random, how.wild) | NO_EXECUTE,
                1 => hole(random),
                2 => continue,
                _ => code_page(part + 1),
            };
            self.map(first + PAGE, 12, next | rights(random, 12), random);
        }
        for &(linear, shift) in self.format.large {
            let target = if random.once_in(4) {
                large_hole(random)
            } else {
                IN_LARGE
            };
            let target = target >> shift << shift;
            self.map(linear, shift, target | rights(random, 12) | NO_EXECUTE, random);
        }
    }

    /// The kernel's pages and those of code where they are in physical memory.
    fn same(&mut self, random: &mut Random) {
        for page in SAME.step_by(PAGE as usize) {
            self.map_surely(page, page | PRESENT | WRITABLE, random);
        }
        for page in 0..CODE_PAGES as u64 {
            let page = CODE + page * PAGE;
            self.map(page, 12, page | rights(random, 24), random);
        }
    }

    /// As [`Filling::map`], with nothing wrong on the way.
    fn map_surely(&mut self, linear: u64, entry: u64, random: &mut Random) {
        self.make(linear, 12, entry, |_| PRESENT | WRITABLE | USER, random);
    }

    /// Makes entries down to `entry`, which maps the page of 2^`shift` bytes at `linear`.
    fn map(&mut self, linear: u64, shift: u32, entry: u64, random: &mut Random) {
        self.make(linear, shift, entry, |random| rights(random, 80), random);
    }

    fn make(
        &mut self,
        linear: u64,
        shift: u32,
        entry: u64,
        rights: fn(&mut Random) -> u64,
        random: &mut Random,
    ) {
        let format = self.format;
        if linear > format.last {
            return;
        }
        let mut table = format.root;
        for &(level, bits) in format.levels {
            let at = table + (linear >> level & ((1 << bits) - 1)) * format.entry;
            if level == shift {
                let size = if shift > 12 { PAGE_SIZE } else { 0 };
                let word = (format.page)(entry | size, shift, random);
                self.words.insert(at, (word, format.entry));
                self.pages.insert(linear, entry & 0x3fff_ffff_f000);
                return;
            }
            table = match self.words.get(&at) {
                Some((entry, _)) => entry & TABLE_ADDRESS,
                None if self.next < format.tables.end => {
                    let next = self.next;
                    self.next += PAGE;
                    let word = (format.table)(next | rights(random), level);
                    self.words.insert(at, (word, format.entry));
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
            _ => TABLES + random.below(((TABLES_END - TABLES) / PAGE) as usize) as u64 * PAGE,
        };
    }
    match random.below(8) {
        0 => hole(random),
        1 => ALONE,
        2 => IN_LARGE + random.below(3) as u64 * PAGE,
        _ => DATA + random.below(DATA_PAGES) as u64 * PAGE,
    }
}
