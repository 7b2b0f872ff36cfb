//! Conversions from and to other formats, and to integral values.

use super::arithmetic::settle;
use super::rounding::{Format, Rounded, round_magnitude, shift_right_sticky};
use super::{BIAS, Class, Context, Float, INTEGER, Outcome, QUIET, Round, SPECIAL, check, flag};

/// A format of IEEE 754 that memory operands have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Width {
    /// 32 bits.
    Single,
    /// 64 bits.
    Double,
}

impl Width {
    /// Bits of the significand, with the one that is not stored.
    fn precision(self) -> u32 {
        match self {
            Self::Single => 24,
            Self::Double => 53,
        }
    }

    /// The exponent of 1.0 as stored, also the largest there is.
    fn bias(self) -> i32 {
        match self {
            Self::Single => 127,
            Self::Double => 1023,
        }
    }

    fn bits(self) -> u32 {
        match self {
            Self::Single => 32,
            Self::Double => 64,
        }
    }
}

/// A number as memory has it, and whether it is denormal there. Signaling NaNs stay what they are.
pub(in super::super) fn from_memory(bits: u64, width: Width) -> (Float, bool) {
    let stored = width.precision() - 1;
    let negative = bits >> (width.bits() - 1) & 1 != 0;
    let exponent = (bits >> stored) as i32 & (2 * width.bias() + 1);
    let fraction = bits << (64 - stored) >> 1;
    let finite = |exponent: i32, significand| Float {
        negative,
        exponent: (exponent + BIAS) as u16,
        significand,
    };
    match (exponent, fraction) {
        (0, 0) => (Float::zero(negative), false),
        (0, _) => {
            let shift = fraction.leading_zeros();
            (finite(1 - width.bias() - shift as i32, fraction << shift), true)
        }
        (exponent, _) if exponent > 2 * width.bias() => {
            let value = Float {
                negative,
                exponent: SPECIAL,
                significand: INTEGER | fraction,
            };
            (value, false)
        }
        _ => (finite(exponent - width.bias(), INTEGER | fraction), false),
    }
}

/// A number from memory on its way to a register.
pub(in super::super) fn widen(value: Float, context: &Context) -> Outcome {
    let flags = settle!(check(value, context));
    Outcome::exact(value).with(flags)
}

/// What `FST` stores, and flags. An unmasked overflow or underflow keeps it from being stored.
pub(in super::super) fn to_memory(value: Float, width: Width, context: &Context) -> (u64, u16) {
    let stored = width.precision() - 1;
    let top = 2 * width.bias() as u64 + 1;
    let pack = |negative: bool, exponent: u64, significand: u64| {
        let fraction = significand << 1 >> (64 - stored);
        u64::from(negative) << (width.bits() - 1) | exponent << stored | fraction
    };
    let nan = |value: Float| pack(value.negative, top, value.significand | QUIET);
    match value.class() {
        Class::Zero => return (pack(value.negative, 0, 0), 0),
        Class::Infinity => return (pack(value.negative, top, 0), 0),
        Class::Quiet => return (nan(value), 0),
        Class::Signaling => return (nan(value), flag::INVALID),
        Class::Unsupported => return (nan(Float::INDEFINITE), flag::INVALID),
        Class::Normal | Class::Denormal => {}
    }
    let format = Format {
        precision: width.precision(),
        min_exponent: 1 - width.bias(),
        max_exponent: width.bias(),
        rebias: 0,
    };
    let parts = value.parts();
    let significand = u128::from(parts.significand) << 64;
    let (rounded, flags) = round_magnitude(value.negative, parts.exponent, significand, &format, context);
    let bits = match rounded {
        Rounded::Infinite => pack(value.negative, top, 0),
        Rounded::Finite {
            exponent,
            significand,
        } if significand & INTEGER != 0 => pack(
            value.negative,
            (exponent + width.bias()) as u64 & top,
            significand,
        ),
        Rounded::Finite { significand, .. } => pack(value.negative, 0, significand),
    };
    (bits, flags)
}

/// An integer, which every register can hold exactly.
pub(in super::super) fn from_integer(value: i64) -> Float {
    from_magnitude(value < 0, value.unsigned_abs())
}

/// A number of 64 bits and a sign.
pub(super) fn from_magnitude(negative: bool, magnitude: u64) -> Float {
    if magnitude == 0 {
        return Float::zero(negative);
    }
    let shift = magnitude.leading_zeros();
    Float {
        negative,
        exponent: (BIAS + 63 - shift as i32) as u16,
        significand: magnitude << shift,
    }
}

/// The integral magnitude of a finite number below `2^64`, rounded, and flags; `None` where it is above. From
/// `2^63` on there is no fraction, so rounding carries to no more than that.
pub(super) fn integral(value: Float, round: Round) -> Option<(u64, u16)> {
    if value.class() == Class::Zero {
        return Some((0, 0));
    }
    let parts = value.parts();
    let shift = u32::try_from(63 - parts.exponent).ok()?;
    // 64 bits before the point and 64 after it.
    let fixed = shift_right_sticky(u128::from(parts.significand) << 64, shift);
    let (whole, rest) = ((fixed >> 64) as u64, fixed as u64);
    let up = match round {
        Round::Nearest => rest > INTEGER || rest == INTEGER && whole & 1 != 0,
        Round::Down => value.negative && rest != 0,
        Round::Up => !value.negative && rest != 0,
        Round::Zero => false,
    };
    let precision = if rest != 0 { flag::PRECISION } else { 0 };
    let flags = precision | if up { flag::C1 } else { 0 };
    Some((whole + u64::from(up), flags))
}

/// What `FIST` stores as a number of `bits` bits, and flags.
pub(in super::super) fn to_integer(value: Float, bits: u32, round: Round) -> (i64, u16) {
    let lowest = i64::MIN >> (64 - bits);
    let finite = matches!(value.class(), Class::Zero | Class::Normal | Class::Denormal);
    let rounded = if finite { integral(value, round) } else { None };
    let limit = lowest.unsigned_abs() - u64::from(!value.negative);
    match rounded {
        Some((magnitude, flags)) if magnitude <= limit => {
            let magnitude = magnitude as i64;
            let number = if value.negative {
                magnitude.wrapping_neg()
            } else {
                magnitude
            };
            (number, flags)
        }
        _ => (lowest, flag::INVALID),
    }
}

/// `FRNDINT`.
pub(in super::super) fn round_to_integral(value: Float, context: &Context) -> Outcome {
    if matches!(value.class(), Class::Zero | Class::Infinity) {
        return Outcome::exact(value);
    }
    let flags = settle!(check(value, context));
    match integral(value, context.round) {
        None => Outcome::exact(value),
        Some((magnitude, more)) => {
            Outcome::exact(from_magnitude(value.negative, magnitude)).with(flags | more)
        }
    }
}
