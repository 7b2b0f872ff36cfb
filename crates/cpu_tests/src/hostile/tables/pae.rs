//! PAE paging (Intel SDM vol. 3, 4.4): four pointers at the root, that have no rights.

use super::{Format, NO_EXECUTE};
use crate::hostile::place::{HUGE, LARGE, PAE_TABLES, POINTERS, TABLES_END};
use crate::random::Random;

pub(super) const FORMAT: Format = Format {
    root: POINTERS,
    tables: PAE_TABLES..TABLES_END,
    levels: &[(30, 2), (21, 9), (12, 9)],
    entry: 8,
    large: &[(LARGE, 21), (HUGE, 21), (HUGE + (1 << 21), 21)],
    last: 0xffff_ffff,
    page,
    table,
};

/// With any attributes of caches; now and then with a bit that only four-level tables ignore.
fn page(entry: u64, shift: u32, random: &mut Random) -> u64 {
    let pat = if shift == 12 { 1 << 7 } else { 1 << 12 };
    let ignored = if random.once_in(64) {
        1 << (52 + random.below(11))
    } else {
        0
    };
    entry | ignored | random.next() & (1 << 3 | 1 << 4 | pat)
}

/// A pointer's bits 1, 2, 5 to 8 and 63 are reserved; one of them is set where the entry is not writable.
fn table(entry: u64, level: u32) -> u64 {
    const RIGHTS: u64 = 0x1e6 | NO_EXECUTE;
    match (level, entry & 2) {
        (30, 0) => entry & !RIGHTS | 1 << 5,
        (30, _) => entry & !RIGHTS,
        _ => entry,
    }
}
