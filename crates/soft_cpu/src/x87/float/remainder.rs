//! `FPREM`, `FPREM1`, `FSCALE`, `FXTRACT`.

use super::arithmetic::settle;
use super::convert::{from_integer, integral};
use super::rounding::round;
use super::{BIAS, Class, Context, Float, Outcome, Parts, Round, check, check_both, denormals, flag};

/// Which way the quotient is rounded whose remainder is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Remainder {
    /// Towards zero: `FPREM`.
    Truncated,
    /// To nearest: `FPREM1`, the remainder of IEEE 754.
    Nearest,
}

/// The remainder of `a / b`, as far as one step gets, with condition codes: C2 where more steps are needed, else the
/// quotient's lowest bits in C0, C3, C1.
pub(in super::super) fn remainder(a: Float, b: Float, kind: Remainder, context: &Context) -> Outcome {
    settle!(check_both(a, b));
    if a.class() == Class::Infinity || b.class() == Class::Zero {
        return Outcome::invalid();
    }
    let flags = settle!(denormals(&[a, b], context));
    let outcome = match (a.class(), b.class()) {
        (Class::Zero, _) => Outcome::exact(a),
        (_, Class::Infinity) => whole(a.parts(), context),
        _ => step(a.parts(), b.parts(), kind, context),
    };
    outcome.with(flags)
}

/// A number as it is; unmasked underflow moves its exponent all the same.
fn whole(a: Parts, context: &Context) -> Outcome {
    round(a.negative, a.exponent, u128::from(a.significand) << 64, context)
}

fn step(a: Parts, b: Parts, kind: Remainder, context: &Context) -> Outcome {
    let distance = a.exponent - b.exponent;
    if distance < -1 || distance == -1 && kind == Remainder::Truncated {
        return whole(a, context);
    }
    if distance >= 64 {
        return partial(a, b, distance, context);
    }
    // Both as multiples of one unit.
    let (dividend, divisor, exponent) = if distance < 0 {
        (
            u128::from(a.significand),
            u128::from(b.significand) << 1,
            a.exponent,
        )
    } else {
        (
            u128::from(a.significand) << distance,
            u128::from(b.significand),
            b.exponent,
        )
    };
    let (mut quotient, mut rest) = (dividend / divisor, dividend % divisor);
    let mut negative = a.negative;
    let above_half = 2 * rest > divisor || 2 * rest == divisor && quotient & 1 != 0;
    if kind == Remainder::Nearest && above_half {
        (quotient, rest, negative) = (quotient + 1, divisor - rest, !negative);
    }
    let mut codes = 0;
    for (bit, code) in [(0, flag::C1), (1, flag::C3), (2, flag::C0)] {
        if quotient >> bit & 1 != 0 {
            codes |= code;
        }
    }
    let outcome = if rest == 0 {
        Outcome::exact(Float::zero(a.negative))
    } else {
        round(negative, exponent, rest << 64, context)
    };
    outcome.with(codes)
}

/// Takes a multiple of `b` off that leaves the exponents less far apart.
fn partial(a: Parts, b: Parts, distance: i32, context: &Context) -> Outcome {
    // How far is the implementation's choice: 32 to 63.
    let by = distance % 32 + 32;
    let rest = (u128::from(a.significand) << by) % u128::from(b.significand);
    let outcome = if rest == 0 {
        Outcome::exact(Float::zero(a.negative))
    } else {
        round(a.negative, a.exponent - by, rest << 64, context)
    };
    outcome.with(flag::C2)
}

/// `a * 2^b`, with `b` rounded towards zero.
pub(in super::super) fn scale(a: Float, b: Float, context: &Context) -> Outcome {
    settle!(check_both(a, b));
    match (a.class(), b.class(), b.negative) {
        (Class::Zero, Class::Infinity, false) | (Class::Infinity, Class::Infinity, true) => {
            return Outcome::invalid();
        }
        _ => {}
    }
    let flags = settle!(denormals(&[a, b], context));
    let outcome = match (a.class(), b.class()) {
        (_, Class::Infinity) if b.negative => Outcome::exact(Float::zero(a.negative)),
        (_, Class::Infinity) => Outcome::exact(Float::infinity(a.negative)),
        (Class::Zero | Class::Infinity, _) => Outcome::exact(a),
        _ => {
            // More than any exponent can be moved by is as good as infinitely much.
            const FAR: u64 = 0x1_0000;
            let by = integral(b, Round::Zero).map_or(FAR, |(magnitude, _)| magnitude.min(FAR)) as i32;
            let parts = a.parts();
            let exponent = parts.exponent + if b.negative { -by } else { by };
            round(a.negative, exponent, u128::from(parts.significand) << 64, context)
        }
    };
    outcome.with(flags)
}

/// Exponent and significand of a number, each as a number.
pub(in super::super) fn extract(a: Float, context: &Context) -> (Outcome, Float) {
    match a.class() {
        Class::Zero => {
            let exponent = Outcome::exact(Float::infinity(true)).with(flag::ZERO_DIVIDE);
            return (exponent, a);
        }
        Class::Infinity => return (Outcome::exact(Float::INFINITY), a),
        _ => {}
    }
    match check(a, context) {
        Err(outcome) => (outcome, outcome.value),
        Ok(flags) => {
            let parts = a.parts();
            let significand = Float::positive(BIAS as u16, parts.significand).with_sign(a.negative);
            (
                Outcome::exact(from_integer(parts.exponent.into())).with(flags),
                significand,
            )
        }
    }
}
