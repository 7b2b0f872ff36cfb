//! Arithmetic on the x87's 80-bit numbers (Intel SDM vol. 1, 4.8 and 8.5), exact to the last bit and the last
//! flag. Nothing here knows registers or memory.
//!
//! A library for IEEE formats would not do: precision control shortens the significand but not the exponent, an
//! unmasked overflow moves the exponent, C1 tells which way rounding went, and some encodings are no numbers.

mod arithmetic;
mod convert;
mod decimal;
mod remainder;
mod rounding;
mod transcendental;
mod wide;

pub(super) use arithmetic::{add, compare, divide, multiply, square_root, subtract};
pub(super) use convert::{Width, from_integer, from_memory, round_to_integral, to_integer, to_memory, widen};
pub(super) use decimal::{from_decimal, to_decimal};
pub(super) use remainder::{Remainder, extract, remainder, scale};
pub(super) use transcendental::{
    arctangent, cosine, exponential, logarithm, logarithm_plus_one, sine, tangent,
};

/// What a computation sets in the status word (Intel SDM vol. 1, 8.1.3).
pub(super) mod flag {
    pub(in super::super) const INVALID: u16 = 1 << 0;
    pub(in super::super) const DENORMAL: u16 = 1 << 1;
    pub(in super::super) const ZERO_DIVIDE: u16 = 1 << 2;
    pub(in super::super) const OVERFLOW: u16 = 1 << 3;
    pub(in super::super) const UNDERFLOW: u16 = 1 << 4;
    pub(in super::super) const PRECISION: u16 = 1 << 5;
    /// A register was full or empty that must not be.
    pub(in super::super) const STACK: u16 = 1 << 6;
    pub(in super::super) const C0: u16 = 1 << 8;
    /// The result's magnitude was rounded up.
    pub(in super::super) const C1: u16 = 1 << 9;
    pub(in super::super) const C2: u16 = 1 << 10;
    pub(in super::super) const C3: u16 = 1 << 14;
    /// Found in the operands: unmasked, they keep the result from being stored.
    pub(in super::super) const BEFORE: u16 = INVALID | DENORMAL | ZERO_DIVIDE;
}

/// Exponent of 1.0 as stored.
const BIAS: i32 = 16383;
/// Smallest exponent of a normal number.
const MIN_EXPONENT: i32 = 1 - BIAS;
/// Exponent field of infinities and NaNs.
const SPECIAL: u16 = 0x7fff;
/// The integer bit, which this format has for itself.
const INTEGER: u64 = 1 << 63;
/// Set in quiet NaNs.
const QUIET: u64 = 1 << 62;

/// An 80-bit number as a register holds it, whatever its bits mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Float {
    pub(super) negative: bool,
    /// 15 bits, biased.
    pub(super) exponent: u16,
    pub(super) significand: u64,
}

/// What the bits of a [`Float`] mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Zero,
    /// Not zero, but with the smallest exponent there is; pseudo-denormals too.
    Denormal,
    Normal,
    Infinity,
    Quiet,
    Signaling,
    /// An encoding that the 80387 and its successors refuse: unnormals, pseudo-infinities, pseudo-NaNs.
    Unsupported,
}

/// A finite number that is not zero: `significand * 2^(exponent - 63)`, with the integer bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) negative: bool,
    pub(super) exponent: i32,
    pub(super) significand: u64,
}

/// Rounding control (Intel SDM vol. 1, table 4-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    Nearest,
    Down,
    Up,
    Zero,
}

/// How to compute: what the control word says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) round: Round,
    /// Bits of a result's significand: 24, 53 or 64.
    pub(super) precision: u32,
    /// Exceptions that are masked, as flags.
    pub(super) masks: u16,
    /// A memory operand was denormal in its own format; in this one it is not.
    pub(super) denormal_operand: bool,
}

/// A result and what computing it has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) value: Float,
    pub(super) flags: u16,
}

impl Context {
    pub(super) fn of(control: u16) -> Self {
        Self {
            round: match control >> 10 & 3 {
                0 => Round::Nearest,
                1 => Round::Down,
                2 => Round::Up,
                _ => Round::Zero,
            },
            precision: match control >> 8 & 3 {
                0 => 24,
                2 => 53,
                // 1 is reserved.
                _ => 64,
            },
            masks: control & 0x3f,
            denormal_operand: false,
        }
    }

    /// The same without precision control, which only a few instructions obey.
    pub(super) fn extended(self) -> Self {
        Self {
            precision: 64,
            ..self
        }
    }

    /// Whether an exception in `flags` keeps the result from being stored.
    pub(super) fn stops(&self, flags: u16) -> bool {
        flags & flag::BEFORE & !self.masks != 0
    }
}

impl Float {
    pub(super) const ZERO: Self = Self::positive(0, 0);
    pub(super) const ONE: Self = Self::positive(BIAS as u16, INTEGER);
    pub(super) const INFINITY: Self = Self::positive(SPECIAL, INTEGER);
    /// What an invalid operation gives (Intel SDM vol. 1, 4.8.3.7).
    pub(super) const INDEFINITE: Self = Self::positive(SPECIAL, INTEGER | QUIET).with_sign(true);

    pub(super) const fn positive(exponent: u16, significand: u64) -> Self {
        Self {
            negative: false,
            exponent,
            significand,
        }
    }

    pub(super) const fn with_sign(self, negative: bool) -> Self {
        Self { negative, ..self }
    }

    /// Zero or infinity of a sign.
    fn zero(negative: bool) -> Self {
        Self::ZERO.with_sign(negative)
    }

    fn infinity(negative: bool) -> Self {
        Self::INFINITY.with_sign(negative)
    }

    pub(super) fn from_bits(bits: u128) -> Self {
        Self {
            negative: bits >> 79 & 1 != 0,
            exponent: (bits >> 64) as u16 & SPECIAL,
            significand: bits as u64,
        }
    }

    pub(super) fn to_bits(self) -> u128 {
        let head = u128::from(self.negative) << 15 | u128::from(self.exponent);
        head << 64 | u128::from(self.significand)
    }

    pub(super) fn class(self) -> Class {
        let integer = self.significand & INTEGER != 0;
        match self.exponent {
            0 if self.significand == 0 => Class::Zero,
            0 => Class::Denormal,
            _ if !integer => Class::Unsupported,
            SPECIAL if self.significand == INTEGER => Class::Infinity,
            SPECIAL if self.significand & QUIET != 0 => Class::Quiet,
            SPECIAL => Class::Signaling,
            _ => Class::Normal,
        }
    }

    pub(super) fn is_nan(self) -> bool {
        matches!(self.class(), Class::Quiet | Class::Signaling)
    }

    /// Takes a finite number that is not zero apart.
    fn parts(self) -> Parts {
        let shift = self.significand.leading_zeros();
        Parts {
            negative: self.negative,
            // Denormals have the exponent of the smallest normal number.
            exponent: i32::from(self.exponent.max(1)) - BIAS - shift as i32,
            significand: self.significand << shift,
        }
    }
}

impl Outcome {
    /// An exact result.
    pub(super) fn exact(value: Float) -> Self {
        Self { value, flags: 0 }
    }

    /// An invalid operation.
    pub(super) fn invalid() -> Self {
        Self {
            value: Float::INDEFINITE,
            flags: flag::INVALID,
        }
    }

    fn with(self, flags: u16) -> Self {
        Self {
            flags: self.flags | flags,
            ..self
        }
    }
}

/// Looks at one operand before anything is computed. `Err` is the result where it decides that already; `Ok` are
/// flags to be set.
fn check(a: Float, context: &Context) -> Result<u16, Outcome> {
    match a.class() {
        Class::Unsupported => Err(Outcome::invalid()),
        Class::Quiet => Err(Outcome::exact(a)),
        Class::Signaling => Err(Outcome::exact(quieted(a)).with(flag::INVALID)),
        _ => denormals(&[a], context),
    }
}

/// Looks at two, as far as NaNs and encodings go that are no numbers.
fn check_both(a: Float, b: Float) -> Result<(), Outcome> {
    let (class_a, class_b) = (a.class(), b.class());
    if class_a == Class::Unsupported || class_b == Class::Unsupported {
        return Err(Outcome::invalid());
    }
    if a.is_nan() || b.is_nan() {
        let signals = class_a == Class::Signaling || class_b == Class::Signaling;
        return Err(Outcome {
            value: propagated(a, b),
            flags: if signals { flag::INVALID } else { 0 },
        });
    }
    Ok(())
}

/// The flag of denormal operands, where there are any; `Err` where that keeps the computation from being done.
fn denormals(operands: &[Float], context: &Context) -> Result<u16, Outcome> {
    let any = context.denormal_operand || operands.iter().any(|operand| operand.class() == Class::Denormal);
    match any {
        false => Ok(0),
        true if context.masks & flag::DENORMAL != 0 => Ok(flag::DENORMAL),
        true => Err(Outcome::exact(Float::ZERO).with(flag::DENORMAL)),
    }
}

fn quieted(nan: Float) -> Float {
    Float {
        significand: nan.significand | QUIET,
        ..nan
    }
}

/// The NaN that comes of two operands of which one is a NaN at least (Intel SDM vol. 1, table 4-7).
fn propagated(a: Float, b: Float) -> Float {
    match (a.class(), b.class()) {
        (Class::Signaling, Class::Quiet) => b,
        (Class::Quiet, Class::Signaling) => a,
        _ if !b.is_nan() => quieted(a),
        _ if !a.is_nan() => quieted(b),
        // The larger significand; of equal ones the positive number.
        _ if (a.significand, b.negative) < (b.significand, a.negative) => quieted(b),
        _ => quieted(a),
    }
}

#[cfg(test)]
mod tests;
