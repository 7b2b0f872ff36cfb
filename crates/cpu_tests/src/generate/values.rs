//! Inputs with a taste for edges.

use crate::block::{Block, WINDOWS, XSAVE_LEN, index, xsave};
use crate::layout::{DATA_END, LAST_WINDOW, LAST_WINDOW_LEN, READ_ONLY, WINDOW, WINDOW_LEN};
use crate::random::Random;

/// Registers that hold addresses when a case starts: RBX, RSP, RBP, RSI, RDI, R12, R13, R14.
pub(crate) const POINTERS: [usize; 8] = [3, 4, 5, 6, 7, 12, 13, 14];
/// Registers that hold small numbers: RCX, R9.
pub(crate) const SMALL: [usize; 2] = [1, 9];
/// Vector registers with small doublewords, and with small quadwords, for gathers.
pub(crate) const INDICES_32: usize = 14;
pub(crate) const INDICES_64: usize = 15;

pub(super) fn word(random: &mut Random) -> u64 {
    const EDGES: [u64; 16] = [
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        u64::MAX,
        u64::MAX - 1,
    ];
    match random.below(6) {
        0 | 1 => random.pick(&EDGES),
        2 => random.below(256) as u64,
        3 => random.next() >> random.below(64),
        4 => random
            .pick(&EDGES)
            .wrapping_add(random.next() % 5)
            .wrapping_sub(2),
        _ => random.next(),
    }
}

/// Somewhere in the windows.
pub(super) fn address(random: &mut Random) -> u64 {
    match random.below(24) {
        0 => LAST_WINDOW + random.below(LAST_WINDOW_LEN) as u64,
        1 => READ_ONLY + random.below(64) as u64,
        2 => word(random),
        3 => DATA_END - random.below(16) as u64,
        4..10 => WINDOW + 64 + random.below(128) as u64,
        _ => WINDOW + 64 + 16 * random.below(8) as u64,
    }
}

fn double(random: &mut Random) -> u64 {
    const EDGES: [u64; 14] = [
        0,
        1,
        0x000f_ffff_ffff_ffff,
        0x0010_0000_0000_0000,
        0x3ff0_0000_0000_0000,
        0x3fe0_0000_0000_0000,
        0x4008_0000_0000_0000,
        0x41df_ffff_ffe0_0000,
        0x43e0_0000_0000_0000,
        0x7fef_ffff_ffff_ffff,
        0x7ff0_0000_0000_0000,
        0x7ff8_0000_0000_0000,
        0x7ff0_0000_0000_0001,
        0x36a0_0000_0000_0000,
    ];
    let sign = random.next() & 1 << 63;
    sign ^ match random.below(4) {
        0 => random.pick(&EDGES),
        1 => (random.below(2000) as f64 / 4.0).to_bits(),
        2 => (1023 - 30 + random.below(60) as u64) << 52 | random.next() >> 12,
        _ => random.next(),
    }
}

fn single(random: &mut Random) -> u32 {
    const EDGES: [u32; 12] = [
        0,
        1,
        0x007f_ffff,
        0x0080_0000,
        0x3f80_0000,
        0x3f00_0000,
        0x4f00_0000,
        0x5f00_0000,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7fc0_0000,
        0x7f80_0001,
    ];
    let sign = (random.next() as u32) & 1 << 31;
    sign ^ match random.below(4) {
        0 => random.pick(&EDGES),
        1 => (random.below(2000) as f32 / 4.0).to_bits(),
        2 => (127 - 15 + random.below(30) as u32) << 23 | random.next() as u32 >> 9,
        _ => random.next() as u32,
    }
}

fn vector(random: &mut Random) -> [u8; 16] {
    let halves: [u64; 2] = match random.below(4) {
        0 => std::array::from_fn(|_| double(random)),
        1 => std::array::from_fn(|_| u64::from(single(random)) << 32 | u64::from(single(random))),
        2 => std::array::from_fn(|_| word(random)),
        _ => std::array::from_fn(|_| random.next()),
    };
    (u128::from(halves[1]) << 64 | u128::from(halves[0])).to_le_bytes()
}

/// An 80-bit number (Intel SDM vol. 1, 4.2.2).
fn extended(random: &mut Random) -> [u8; 10] {
    const INTEGER: u64 = 1 << 63;
    let sign = (random.next() as u16) & 1 << 15;
    let (exponent, significand) = match random.below(12) {
        0 => (0, 0),
        1 => (0, random.next() >> 1),
        2 => (0x7fff, INTEGER),
        3 => (0x7fff, INTEGER | random.next()),
        4 => (0x3fff + random.below(63) as u16, INTEGER),
        5 => (random.below(0x8000) as u16, INTEGER | random.next()),
        6 => (
            random.pick(&[0, 1, 0x7ffe, 0x3fff]),
            random.pick(&[0, INTEGER, u64::MAX]),
        ),
        7 => (random.below(0x8000) as u16, random.next()),
        _ => (
            0x3fff - 20 + random.below(60) as u16,
            INTEGER | random.next() << random.below(64),
        ),
    };
    let number = u128::from(significand) | u128::from(exponent | sign) << 64;
    std::array::from_fn(|byte| number.to_le_bytes()[byte])
}

/// All inputs of one case.
pub(super) fn block(random: &mut Random) -> Block {
    let mut block = Block::zeroed();
    for number in 0..16 {
        let value = if POINTERS.contains(&number) {
            address(random)
        } else if SMALL.contains(&number) && !random.once_in(4) {
            random.below(24) as u64
        } else {
            word(random)
        };
        block.set_gpr(number, value);
    }
    // RSP.
    if !random.once_in(24) {
        block.set_gpr(4, WINDOW + 64 + 8 * random.below(16) as u64);
    }
    let status = [0_u64, 2, 4, 6, 7, 11]
        .iter()
        .fold(0, |flags, bit| flags | (random.next() & 1) << bit);
    let rare = |random: &mut Random, bit: u64, times: usize| u64::from(random.once_in(times)) << bit;
    let flags = status | 2 | rare(random, 10, 8) | rare(random, 21, 8);
    block.set_register(index::FLAGS, flags);
    extended_state(&mut block, random);
    for at in (WINDOWS..WINDOWS + WINDOW_LEN + LAST_WINDOW_LEN).step_by(16) {
        block.set_bytes(at, &vector(random));
    }
    for _ in 0..8 {
        let at = WINDOWS + random.below(WINDOW_LEN - 10);
        block.set_bytes(at, &extended(random));
    }
    block
}

fn extended_state(block: &mut Block, random: &mut Random) {
    let control = if random.once_in(3) {
        (random.next() as u16) & 0xf00 | 0x7f
    } else {
        0x37f
    };
    let unmasked = if random.once_in(12) {
        random.next() as u16 & 0x3f
    } else {
        0
    };
    block.set_bytes(xsave::FCW, &(control & !unmasked).to_le_bytes());
    // Condition codes, top of stack, exceptions that happened and are masked.
    let status = random.next() as u16 & (0x7f00 | if unmasked == 0 { 0x7f } else { 0 });
    block.set_bytes(xsave::FSW, &status.to_le_bytes());
    block.0[xsave::FTW] = if random.once_in(3) {
        random.next() as u8
    } else {
        0xff
    };
    let rounding = if random.once_in(2) {
        0
    } else {
        random.next() as u32 & 0xe040
    };
    let masks = if random.once_in(12) {
        random.next() as u32 & 0x1f80
    } else {
        0x1f80
    };
    let happened = if masks == 0x1f80 {
        random.next() as u32 & 0x3f
    } else {
        0
    };
    block.set_bytes(xsave::MXCSR, &(rounding | masks | happened).to_le_bytes());
    for number in 0..8 {
        block.set_bytes(xsave::ST + number * 16, &extended(random));
    }
    for number in 0..16 {
        block.set_bytes(xsave::XMM + number * 16, &vector(random));
        block.set_bytes(xsave::YMM_HIGH + number * 16, &vector(random));
    }
    for half in [xsave::XMM, xsave::YMM_HIGH] {
        for lane in 0..4 {
            let small = random.below(64) as i32 - 16;
            block.set_bytes(half + INDICES_32 * 16 + lane * 4, &small.to_le_bytes());
        }
        for lane in 0..2 {
            let small = random.below(64) as i64 - 16;
            block.set_bytes(half + INDICES_64 * 16 + lane * 8, &small.to_le_bytes());
        }
    }
    const { assert!(xsave::YMM_HIGH + 256 == XSAVE_LEN) };
    block.0[xsave::XSTATE_BV] = 7;
}
