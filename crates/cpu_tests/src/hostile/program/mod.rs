//! Parts of programs: accesses of every kind to places where something is wrong.

mod far;
mod long;
mod narrow;
mod switch;

use iced_x86::IcedError;

use super::part::Plan;
use super::place::{
    ALONE, CODE, CODE_LINEAR, CODE_PAGES, CODE_STRIDE, DATA, DATA_PAGES, HUGE, IN_LARGE, LARGE, MOST_PARTS,
    PAGE, RUNS, TABLES_END,
};
use super::setting::Kind;
use crate::random::Random;

/// Code of the part of this number.
pub(super) fn code(random: &mut Random, number: usize, plans: &[Plan]) -> Result<Vec<u8>, IcedError> {
    let plan = &plans[number];
    // None that is over already: programs go round in no circles.
    let later = &plans[number + 1..];
    if plan.bits == 64 {
        long::part(random, plan, later)
    } else {
        narrow::part(random, plan, later)
    }
}

/// An address near a border, in most cases.
pub(super) fn address(random: &mut Random, kind: Kind) -> u64 {
    let page = match kind {
        Kind::Unpaged => physical(random),
        _ => linear(random),
    };
    let offset = match random.below(4) {
        0 => random.next() & 0xfff,
        1 => random.next() & 0xff8,
        _ => 0xfff - random.next() % 40,
    };
    let address = (page & !(PAGE - 1)).wrapping_add(offset);
    if kind.is_wide() {
        address
    } else {
        address & 0xffff_ffff
    }
}

/// A page that tables are made up for.
fn linear(random: &mut Random) -> u64 {
    match random.below(16) {
        0 => LARGE + IN_LARGE % (1 << 21) + random.below(4) as u64 * PAGE,
        1 => LARGE + (1 << 21) - PAGE * random.below(2) as u64,
        2 => HUGE + IN_LARGE % (1 << 30) + random.below(4) as u64 * PAGE,
        3 => CODE_LINEAR + random.below(MOST_PARTS) as u64 * CODE_STRIDE,
        4 => random.next(),
        _ => {
            let (first, count) = random.pick(&RUNS);
            first.wrapping_add(random.below(count) as u64 * PAGE)
        }
    }
}

/// A page of RAM, or next to one.
fn physical(random: &mut Random) -> u64 {
    match random.below(12) {
        0 => ALONE - PAGE + random.below(3) as u64 * PAGE,
        1 => IN_LARGE - PAGE + random.below(5) as u64 * PAGE,
        2 => CODE + (CODE_PAGES - 1) as u64 * PAGE,
        3 => TABLES_END - PAGE * random.below(2) as u64,
        4 => 0xffff_f000,
        5 => 0,
        6 => random.next(),
        _ => DATA - PAGE + random.below(DATA_PAGES + 1) as u64 * PAGE,
    }
}
