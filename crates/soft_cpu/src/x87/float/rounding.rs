//! Rounding of exact results.

use super::{BIAS, Context, Float, MIN_EXPONENT, Outcome, Round, flag};

/// Where a result has to fit in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// Bits of the significand.
    pub(super) precision: u32,
    pub(super) min_exponent: i32,
    pub(super) max_exponent: i32,
    /// What an unmasked overflow or underflow moves the exponent by (Intel SDM vol. 1, 8.5.4); 0 where it keeps
    /// the result from being stored.
    pub(super) rebias: i32,
}

/// A rounded magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounded {
    Infinite,
    /// `significand * 2^(exponent - 63)`; without the top bit only with the smallest exponent.
    Finite {
        exponent: i32,
        significand: u64,
    },
}

/// Rounds `significand`, whose top bit is not clear, to `keep` of its bits: those bits at the top, whether that
/// carried out of the top, whether anything was lost, and whether the magnitude grew.
fn cut(significand: u128, keep: u32, negative: bool, round: Round) -> (u128, bool, bool, bool) {
    let unit = 1_u128 << (128 - keep);
    let rest = significand & (unit - 1);
    let kept = significand - rest;
    let up = match round {
        Round::Nearest => rest > unit / 2 || rest == unit / 2 && kept & unit != 0,
        Round::Down => negative && rest != 0,
        Round::Up => !negative && rest != 0,
        Round::Zero => false,
    };
    let (value, carry) = if up {
        kept.overflowing_add(unit)
    } else {
        (kept, false)
    };
    (if carry { 1 << 127 } else { value }, carry, rest != 0, up)
}

/// Shifts right; what is lost leaves a mark in the lowest bit.
pub(super) fn shift_right_sticky(value: u128, count: u32) -> u128 {
    match count {
        0 => value,
        1..128 => value >> count | u128::from(value << (128 - count) != 0),
        _ => u128::from(value != 0),
    }
}

/// Rounds `significand * 2^(exponent - 127)`, whose top bit is set and whose lowest bit may stand for more, to
/// what fits in `format`.
pub(super) fn round_magnitude(
    negative: bool,
    exponent: i32,
    significand: u128,
    format: &Format,
    context: &Context,
) -> (Rounded, u16) {
    let (value, carry, inexact, up) = cut(significand, format.precision, negative, context.round);
    let rounded_exponent = exponent + i32::from(carry);
    let lost = |inexact, up| {
        let precision = if inexact { flag::PRECISION } else { 0 };
        precision | if up { flag::C1 } else { 0 }
    };
    let finite = |exponent, value: u128| Rounded::Finite {
        exponent,
        significand: (value >> 64) as u64,
    };
    // Only `FSCALE` goes beyond what moving the exponent can bring back: the result is no longer exact then.
    let moved = |exponent, value, flags| match exponent {
        exponent if exponent > format.max_exponent => (Rounded::Infinite, flag::PRECISION | flag::C1 | flags),
        exponent if exponent < format.min_exponent => {
            (finite(format.min_exponent, 0), flag::PRECISION | flags)
        }
        exponent => (finite(exponent, value), flags),
    };
    if rounded_exponent > format.max_exponent {
        if context.masks & flag::OVERFLOW == 0 {
            let flags = flag::OVERFLOW | lost(inexact, up);
            return moved(rounded_exponent - format.rebias, value, flags);
        }
        return overflowed(negative, format, context);
    }
    // Tiny is what is so after rounding with an exponent that has no end.
    if rounded_exponent < format.min_exponent {
        if context.masks & flag::UNDERFLOW == 0 {
            let flags = flag::UNDERFLOW | lost(inexact, up);
            return moved(rounded_exponent + format.rebias, value, flags);
        }
        let shift = (format.min_exponent - exponent) as u32;
        return denormalized(negative, shift_right_sticky(significand, shift), format, context);
    }
    (finite(rounded_exponent, value), lost(inexact, up))
}

/// The result of a masked overflow (Intel SDM vol. 1, table 4-10).
fn overflowed(negative: bool, format: &Format, context: &Context) -> (Rounded, u16) {
    let to_infinity = match context.round {
        Round::Nearest => true,
        Round::Down => negative,
        Round::Up => !negative,
        Round::Zero => false,
    };
    let flags = flag::OVERFLOW | flag::PRECISION;
    if to_infinity {
        return (Rounded::Infinite, flags | flag::C1);
    }
    let largest = Rounded::Finite {
        exponent: format.max_exponent,
        significand: u64::MAX << (64 - format.precision),
    };
    (largest, flags)
}

/// The result of a masked underflow. `significand` belongs to the smallest exponent.
fn denormalized(negative: bool, significand: u128, format: &Format, context: &Context) -> (Rounded, u16) {
    let (value, carry, inexact, up) = cut(significand, format.precision, negative, context.round);
    debug_assert!(!carry, "a denormal number does not reach the top");
    let mut flags = 0;
    if inexact {
        flags |= flag::UNDERFLOW | flag::PRECISION;
    }
    if up {
        flags |= flag::C1;
    }
    let result = Rounded::Finite {
        exponent: format.min_exponent,
        significand: (value >> 64) as u64,
    };
    (result, flags)
}

/// Rounds `significand * 2^(exponent - 127)`, not zero, to a register. Its lowest bit may stand for more.
pub(super) fn round(negative: bool, exponent: i32, significand: u128, context: &Context) -> Outcome {
    let format = Format {
        precision: context.precision,
        min_exponent: MIN_EXPONENT,
        max_exponent: BIAS,
        rebias: 24576,
    };
    let shift = significand.leading_zeros();
    let (rounded, flags) = round_magnitude(
        negative,
        exponent - shift as i32,
        significand << shift,
        &format,
        context,
    );
    let value = match rounded {
        Rounded::Infinite => Float::infinity(negative),
        Rounded::Finite {
            exponent,
            significand,
        } => Float {
            negative,
            exponent: if significand >> 63 == 0 {
                0
            } else {
                (exponent + BIAS) as u16
            },
            significand,
        },
    };
    Outcome { value, flags }
}
