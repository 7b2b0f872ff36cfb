//! Known answers, and answers of an independent implementation.

mod arithmetic;
mod conversion;
mod transcendental;

use super::{Context, Float, Round};

/// A number from sign and exponent, and significand: as its bits are printed.
fn float(bits: u128) -> Float {
    Float::from_bits(bits)
}

/// Everything masked, 64 bits, this rounding.
fn rounding(round: Round) -> Context {
    Context {
        round,
        ..Context::of(0x37f)
    }
}

fn nearest() -> Context {
    rounding(Round::Nearest)
}

const ONE: u128 = 0x3fff_8000_0000_0000_0000;
const TWO: u128 = 0x4000_8000_0000_0000_0000;
const THREE: u128 = 0x4000_c000_0000_0000_0000;
const INFINITY: u128 = 0x7fff_8000_0000_0000_0000;
const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;
const LARGEST: u128 = 0x7ffe_ffff_ffff_ffff_ffff;
const SMALLEST_NORMAL: u128 = 0x0001_8000_0000_0000_0000;
const SMALLEST: u128 = 1;
