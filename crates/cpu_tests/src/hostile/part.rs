//! What each part of a program starts with.

use hypervisor::x86_64::{Segment, SegmentAttributes as A};

use super::place::{
    CODE_LINEAR, CODE_STRIDE, KERNEL_CS, KERNEL_SS, PAGE, PART_SEGMENTS, PART_STACK_TOP, RING1_SS, USER_CS,
    USER_SS,
};
use super::program;
use super::setting::{Kind, Setting};
use super::tables::code_page;
use crate::random::Random;

/// Words of what [`super::place::PARTS`] holds for a part.
pub(super) const WORDS: usize = 11;
/// The place of each but the first five: what `IRET` takes.
pub(super) mod word {
    pub(crate) const RIP: usize = 0;
    pub(crate) const CS: usize = 1;
    pub(crate) const FLAGS: usize = 2;
    pub(crate) const RSP: usize = 3;
    pub(crate) const SS: usize = 4;
    pub(crate) const DS: usize = 5;
    pub(crate) const ES: usize = 6;
    pub(crate) const CR0: usize = 7;
    pub(crate) const CR3: usize = 8;
    pub(crate) const CR4: usize = 9;
    pub(crate) const EFER: usize = 10;
}

/// A part before it has code.
pub(super) struct Plan {
    pub(super) setting: Setting,
    /// Width of code.
    pub(super) bits: u32,
    pub(super) level: u8,
    /// Its program goes from mode to mode.
    pub(super) mixed: bool,
    /// The linear address of its code, and what the instruction pointer has for that.
    pub(super) at: u64,
    pub(super) ip: u64,
    pub(super) words: [u64; WORDS],
    /// Its own code and data segments.
    pub(super) descriptors: [u64; 2],
}

impl Plan {
    /// A part in 64-bit code, of a program that knows no other.
    pub(super) fn long(random: &mut Random, number: usize, setting: Setting) -> Self {
        let offset = offset(random);
        let at = CODE_LINEAR + number as u64 * CODE_STRIDE + offset;
        let level = if random.once_in(2) { 0 } else { 3 };
        let (cs, ss) = flat_segments(64, level);
        let mut words = [0; WORDS];
        words[word::RIP] = at;
        words[word::CS] = cs.into();
        words[word::FLAGS] = flags(random);
        words[word::RSP] = program::address(random, Kind::Long);
        words[word::SS] = ss.into();
        words[word::DS] = ss.into();
        words[word::ES] = ss.into();
        [word::CR0, word::CR3, word::CR4, word::EFER]
            .into_iter()
            .zip([setting.cr0, setting.cr3, setting.cr4, setting.efer])
            .for_each(|(word, value)| words[word] = value);
        Self {
            setting,
            bits: 64,
            level,
            mixed: false,
            at,
            ip: at,
            words,
            descriptors: [0; 2],
        }
    }

    /// A part in any mode.
    pub(super) fn mixed(random: &mut Random, number: usize, setting: Setting) -> Self {
        let kind = setting.kind;
        let mut plan = Self::long(random, number, setting);
        plan.mixed = true;
        if kind == Kind::Long {
            return plan;
        }
        plan.bits = if random.once_in(4) { 16 } else { 32 };
        plan.level = random.pick(&[0, 0, 1, 3, 3]);
        if kind == Kind::Unpaged || random.once_in(2) {
            // Code of other parts is on the next page.
            let inside = 0x400 + random.below(0x800) as u64;
            let offset = if number == 0 { plan.at % PAGE } else { inside };
            plan.at = code_page(number) + offset;
        }
        let code = code_segment(random, &plan);
        let data = data_segment(random, plan.level);
        plan.ip = plan.at.wrapping_sub(code.base) & 0xffff_ffff;
        plan.descriptors = [code.descriptor(), data.descriptor()];
        let own = PART_SEGMENTS + number as u16 * 16;
        let (_, flat) = flat_segments(32, plan.level);
        let own_data = (own + 8) | u16::from(plan.level);
        let mut segment = |choices: &[u16]| u64::from(random.pick(choices));
        let words = &mut plan.words;
        words[word::RIP] = plan.ip;
        words[word::CS] = u64::from(own | u16::from(plan.level));
        words[word::DS] = segment(&[flat, flat, own_data, own_data, own_data, 0]);
        words[word::ES] = segment(&[flat, flat, own_data, own_data, 0]);
        words[word::SS] = segment(&[flat, flat, flat, own_data]);
        words[word::RSP] = program::address(random, kind);
        if plan.level == 0 {
            words[word::SS] = flat.into();
            if !kind.is_long_mode() {
                // Its exceptions are told there.
                words[word::RSP] = PART_STACK_TOP;
            }
        }
        plan
    }
}

/// CS (of 64-bit code) and SS without limits.
fn flat_segments(bits: u32, level: u8) -> (u16, u16) {
    match (bits, level) {
        (_, 0) => (KERNEL_CS, KERNEL_SS),
        (_, 1) => (KERNEL_CS, RING1_SS),
        _ => (USER_CS, USER_SS),
    }
}

/// Near the end of its page, so that instructions lie over it.
fn offset(random: &mut Random) -> u64 {
    match random.below(3) {
        0 => 0x400 + random.below(0x800) as u64,
        _ => PAGE - 1 - random.below(100) as u64,
    }
}

/// Now and then with single steps, alignment checks, or strings downwards.
fn flags(random: &mut Random) -> u64 {
    let rare = |random: &mut Random, bit: u64, times: usize| u64::from(random.once_in(times)) << bit;
    2 | rare(random, 8, 32) | rare(random, 9, 2) | rare(random, 10, 6) | rare(random, 18, 16)
}

/// A segment in which the part's code is.
fn code_segment(random: &mut Random, plan: &Plan) -> Segment {
    let base = if plan.bits == 16 {
        // The instruction pointer has 16 bits.
        let ip = plan.at % PAGE + random.pick(&[0, 0x1000, 0x1230, 0xe000]);
        plan.at.wrapping_sub(ip)
    } else {
        random.pick(&[
            0,
            0,
            0,
            0x1000,
            0xffff_f000,
            0x8000_0000,
            0xffff_fff0,
            0x7ff,
            0xffff_0001,
        ])
    } & 0xffff_ffff;
    let ip = plan.at.wrapping_sub(base) as u32;
    let limit = match random.below(8) {
        0 => ip.saturating_add(random.below(100) as u32),
        1 => ip | 0xfff,
        _ if plan.bits == 16 => 0xffff,
        _ => u32::MAX,
    };
    let big = if plan.bits == 32 { A::BIG } else { A::empty() };
    // Code that cannot be read, conforming code.
    let mut kind = A::CODE_OR_DATA | A::CODE | A::PRESENT;
    if !random.once_in(6) {
        kind |= A::WRITABLE;
    }
    if random.once_in(8) {
        kind |= A::from_bits_retain(4);
    }
    segment(base, limit, kind | big, plan.level)
}

/// A segment of data that may begin and end anywhere, also around 4 GiB.
pub(super) fn data_segment(random: &mut Random, level: u8) -> Segment {
    let any = random.next() & 0xffff_ffff;
    let base = random.pick(&[
        0,
        0,
        0,
        0x1000,
        0xffff_f000,
        0x10_0000,
        1,
        0xffff_0000,
        0xfff_fff8,
        any,
    ]);
    let limit = match random.below(8) {
        0 => 0xffff,
        1 => 0x40_7fff,
        2 => random.next() as u32,
        3 => random.below(0x10_0000) as u32,
        _ => u32::MAX,
    };
    let mut kind = A::CODE_OR_DATA;
    for (bit, times) in [(A::PRESENT, 24), (A::WRITABLE, 12), (A::BIG, 4)] {
        if !random.once_in(times) {
            kind |= bit;
        }
    }
    // Growing downwards.
    if random.once_in(8) {
        kind |= A::from_bits_retain(4);
    }
    segment(base, limit, kind, level)
}

fn segment(base: u64, limit: u32, attributes: A, level: u8) -> Segment {
    let granular = if limit > 0xf_ffff { A::GRANULAR } else { A::empty() };
    Segment {
        selector: 0,
        base,
        limit,
        attributes: attributes | granular | A::from_bits_retain(u32::from(level) << 5),
    }
}
