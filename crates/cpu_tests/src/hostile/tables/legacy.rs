//! 32-bit paging (Intel SDM vol. 3, 4.3). Where CR4.PSE is clear, what are large pages lead to tables in data.

use super::Format;
use crate::hostile::place::{DIRECTORY, HUGE, NARROW_TABLES, PAE_TABLES};
use crate::random::Random;

/// Behind the large page that the other kinds have.
const LARGE: u64 = 0xc0_0000;

pub(super) const FORMAT: Format = Format {
    root: DIRECTORY,
    tables: NARROW_TABLES..PAE_TABLES,
    levels: &[(22, 10), (12, 10)],
    entry: 4,
    large: &[(LARGE, 22), (HUGE, 22)],
    last: 0xffff_ffff,
    page,
    table: |entry, _| entry & 0xffff_ffff,
};

/// Addresses above 4 GiB have their place in large pages alone (PSE-36); bit 21 of these is reserved.
fn page(entry: u64, shift: u32, random: &mut Random) -> u64 {
    let caches = random.next() & (1 << 3 | 1 << 4);
    let high = if shift == 12 {
        0
    } else {
        (entry >> 32 & 0xff) << 13
    };
    let odd = match (shift, random.below(16)) {
        (22, 0) => 1 << 21,
        (22, 1) => 1 << (13 + random.below(8)),
        _ => 0,
    };
    (entry | caches | high | odd) & 0xffff_ffff
}
