//! Four-level paging, of IA-32e mode (Intel SDM vol. 3, 4.5).

use super::Format;
use crate::hostile::place::{HUGE, LARGE, NARROW_TABLES, PML4, TABLES};
use crate::random::Random;

pub(super) const FORMAT: Format = Format {
    root: PML4,
    tables: TABLES..NARROW_TABLES,
    levels: &[(39, 9), (30, 9), (21, 9), (12, 9)],
    entry: 8,
    large: &[(LARGE, 21), (HUGE, 30)],
    last: u64::MAX,
    page,
    table: |entry, _| entry,
};

/// With any attributes of caches.
fn page(entry: u64, shift: u32, random: &mut Random) -> u64 {
    let pat = if shift == 12 { 1 << 7 } else { 1 << 12 };
    entry | random.next() & (1 << 3 | 1 << 4 | pat)
}
