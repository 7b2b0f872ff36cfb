//! Addition, subtraction, multiplication, division, square root, comparison.

use super::rounding::{round, shift_right_sticky};
use super::{Class, Context, Float, Outcome, Parts, Round, check, check_both, denormals, flag};

/// Gives back the result that is known already.
macro_rules! settle {
    ($checked:expr) => {
        match $checked {
            Ok(flags) => flags,
            Err(outcome) => return outcome,
        }
    };
}
pub(super) use settle;

pub(in super::super) fn add(a: Float, b: Float, context: &Context) -> Outcome {
    sum(a, b, false, context)
}

pub(in super::super) fn subtract(a: Float, b: Float, context: &Context) -> Outcome {
    sum(a, b, true, context)
}

/// `a + b`, or `a - b` where `flip` changes the sign of `b`. NaNs keep their signs.
fn sum(a: Float, b: Float, flip: bool, context: &Context) -> Outcome {
    settle!(check_both(a, b));
    let negative_b = b.negative ^ flip;
    let infinite = (a.class() == Class::Infinity, b.class() == Class::Infinity);
    if infinite == (true, true) && a.negative != negative_b {
        return Outcome::invalid();
    }
    let flags = settle!(denormals(&[a, b], context));
    let outcome = match (infinite, a.class(), b.class()) {
        ((true, _), ..) => Outcome::exact(a),
        ((_, true), ..) => Outcome::exact(b.with_sign(negative_b)),
        (_, Class::Zero, Class::Zero) if a.negative == negative_b => Outcome::exact(a),
        (_, Class::Zero, Class::Zero) => Outcome::exact(cancelled(context)),
        (_, Class::Zero, _) => exactly(b.with_sign(negative_b).parts(), context),
        (_, _, Class::Zero) => exactly(a.parts(), context),
        _ => sum_of_parts(a.parts(), b.with_sign(negative_b).parts(), context),
    };
    outcome.with(flags)
}

/// The zero that a difference of equal numbers is.
fn cancelled(context: &Context) -> Float {
    Float::zero(context.round == Round::Down)
}

/// A number as it is, but for precision control.
fn exactly(a: Parts, context: &Context) -> Outcome {
    round(a.negative, a.exponent, u128::from(a.significand) << 64, context)
}

fn sum_of_parts(a: Parts, b: Parts, context: &Context) -> Outcome {
    let (large, small) = if (a.exponent, a.significand) < (b.exponent, b.significand) {
        (b, a)
    } else {
        (a, b)
    };
    // One bit is left free at the top for a carry.
    let left = u128::from(large.significand) << 63;
    let distance = (large.exponent - small.exponent) as u32;
    let right = shift_right_sticky(u128::from(small.significand) << 63, distance);
    let significand = if large.negative == small.negative {
        left + right
    } else {
        left - right
    };
    if significand == 0 {
        return Outcome::exact(cancelled(context));
    }
    round(large.negative, large.exponent + 1, significand, context)
}

pub(in super::super) fn multiply(a: Float, b: Float, context: &Context) -> Outcome {
    settle!(check_both(a, b));
    let negative = a.negative ^ b.negative;
    let (class_a, class_b) = (a.class(), b.class());
    let has = |class| class_a == class || class_b == class;
    if has(Class::Infinity) && has(Class::Zero) {
        return Outcome::invalid();
    }
    let flags = settle!(denormals(&[a, b], context));
    let outcome = if has(Class::Infinity) {
        Outcome::exact(Float::infinity(negative))
    } else if has(Class::Zero) {
        Outcome::exact(Float::zero(negative))
    } else {
        let (a, b) = (a.parts(), b.parts());
        let product = u128::from(a.significand) * u128::from(b.significand);
        round(negative, a.exponent + b.exponent + 1, product, context)
    };
    outcome.with(flags)
}

pub(in super::super) fn divide(a: Float, b: Float, context: &Context) -> Outcome {
    settle!(check_both(a, b));
    let negative = a.negative ^ b.negative;
    let outcome = match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => return Outcome::invalid(),
        (Class::Infinity, _) => Outcome::exact(Float::infinity(negative)),
        // That comes before a denormal dividend.
        (_, Class::Zero) => return Outcome::exact(Float::infinity(negative)).with(flag::ZERO_DIVIDE),
        (_, Class::Infinity) | (Class::Zero, _) => Outcome::exact(Float::zero(negative)),
        _ => {
            let flags = settle!(denormals(&[a, b], context));
            let (a, b) = (a.parts(), b.parts());
            let significand = quotient(a.significand, b.significand);
            let outcome = round(negative, a.exponent - b.exponent, significand, context);
            return outcome.with(flags);
        }
    };
    outcome.with(settle!(denormals(&[a, b], context)))
}

/// `a / b` of two numbers with their top bits set, as `2^-127` times what is given back; the lowest bit stands for
/// all that is missing.
fn quotient(a: u64, b: u64) -> u128 {
    let (divisor, dividend) = (u128::from(b), u128::from(a) << 63);
    let (high, rest) = (dividend / divisor, dividend % divisor);
    let (low, rest) = ((rest << 64) / divisor, (rest << 64) % divisor);
    high << 64 | low | u128::from(rest != 0)
}

pub(in super::super) fn square_root(a: Float, context: &Context) -> Outcome {
    match (a.class(), a.negative) {
        (Class::Zero, _) | (Class::Infinity, false) => return Outcome::exact(a),
        (Class::Normal | Class::Denormal | Class::Infinity, true) => return Outcome::invalid(),
        _ => {}
    }
    let flags = settle!(check(a, context));
    let parts = a.parts();
    let odd = parts.exponent & 1;
    let radicand = u128::from(parts.significand) << (63 + odd);
    let root = radicand.isqrt();
    let rest = radicand - root * root;
    // The next bit is set where the rest is more than half a unit: (root + 1/2)^2 is no integer.
    let significand = root << 64 | u128::from(rest > root) << 63 | u128::from(rest != 0);
    round(false, (parts.exponent - odd) / 2, significand, context).with(flags)
}

/// Condition codes of a comparison: C3 equal, C0 less, all three unordered. Quiet NaNs are invalid where `signals`.
pub(in super::super) fn compare(a: Float, b: Float, signals: bool, context: &Context) -> u16 {
    let unordered = flag::C3 | flag::C2 | flag::C0;
    if let Err(outcome) = check_both(a, b) {
        let invalid = if signals { flag::INVALID } else { 0 };
        return unordered | outcome.flags | invalid;
    }
    // An unmasked exception does not keep numbers from being compared.
    let flags = denormals(&[a, b], context).unwrap_or_else(|outcome| outcome.flags);
    let key = |value: Float| {
        let magnitude = match value.class() {
            Class::Zero => 0,
            // A pseudo-denormal is as large as the normal number that it looks like.
            _ => i128::from(value.exponent.max(1)) << 64 | i128::from(value.significand),
        };
        if value.negative { -magnitude } else { magnitude }
    };
    let order = key(a).cmp(&key(b));
    flags
        | match order {
            std::cmp::Ordering::Less => flag::C0,
            std::cmp::Ordering::Equal => flag::C3,
            std::cmp::Ordering::Greater => 0,
        }
}
