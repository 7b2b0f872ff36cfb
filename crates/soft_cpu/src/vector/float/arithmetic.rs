//! Addition, subtraction, multiplication, division, square root.

use super::host::compute;
use super::rounding::{pack, shift_right_sticky};
use super::{
    Class, Environment, Format, HostOperation, Rounding, Unpacked, flag, infinity, is_nan, is_signaling,
    unpack, zero,
};

/// What two operands give if one of them is no number: the first such, made quiet (Intel SDM vol. 1, table 4-7).
#[inline]
pub(super) fn nan_of_two<F: Format>(environment: &mut Environment, a: u64, b: u64) -> Option<u64> {
    if !is_nan::<F>(a) && !is_nan::<F>(b) {
        return None;
    }
    if is_signaling::<F>(a) || is_signaling::<F>(b) {
        environment.raise(flag::INVALID);
    }
    Some(if is_nan::<F>(a) { a } else { b } | F::QUIET)
}

/// An invalid operation.
pub(super) fn invalid<F: Format>(environment: &mut Environment) -> u64 {
    environment.raise(flag::INVALID);
    F::DEFAULT_NAN
}

/// Raises the flag of denormal operands.
#[inline]
pub(super) fn note_denormals(environment: &mut Environment, operands: &[&Unpacked]) {
    if operands.iter().any(|operand| operand.denormal) {
        environment.raise(flag::DENORMAL);
    }
}

/// A number as exact as sums need it: `significand` / 2^126 * 2^`exponent`, zero or with bit 126 set.
#[derive(Clone, Copy)]
pub(super) struct Term {
    pub(super) negative: bool,
    pub(super) exponent: i32,
    pub(super) significand: u128,
}

impl Term {
    pub(super) fn of(number: &Unpacked) -> Self {
        Self {
            negative: number.negative,
            exponent: number.exponent,
            significand: u128::from(number.significand) << 63,
        }
    }
}

/// The sum of two finite numbers, of which one at least is not zero.
pub(super) fn sum<F: Format>(environment: &mut Environment, a: Term, b: Term) -> u64 {
    let swap = a.significand == 0 || b.significand != 0 && a.exponent < b.exponent;
    let (large, small) = if swap { (b, a) } else { (a, b) };
    // Of a zero the exponent says nothing; whatever the distance, nothing is shifted.
    let distance = large.exponent.saturating_sub(small.exponent).max(0);
    let shifted = shift_right_sticky(small.significand, distance as u32);
    let (negative, significand) = if large.negative == small.negative {
        (large.negative, large.significand + shifted)
    } else if large.significand >= shifted {
        (large.negative, large.significand - shifted)
    } else {
        (small.negative, shifted - large.significand)
    };
    if significand == 0 {
        return zero::<F>(environment.rounding == Rounding::Down);
    }
    pack::<F>(environment, negative, large.exponent + 1, significand)
}

/// `a` + `b`.
#[inline]
pub(crate) fn add<F: Format>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    compute::<F>(environment, HostOperation::Add, a, b).unwrap_or_else(|| add_slowly::<F>(environment, a, b))
}

/// `a` - `b`.
#[inline]
pub(crate) fn subtract<F: Format>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    compute::<F>(environment, HostOperation::Subtract, a, b).unwrap_or_else(|| {
        // A NaN keeps its sign.
        let b = if is_nan::<F>(b) { b } else { b ^ F::SIGN };
        add_slowly::<F>(environment, a, b)
    })
}

pub(super) fn add_slowly<F: Format>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    if let Some(nan) = nan_of_two::<F>(environment, a, b) {
        return nan;
    }
    let (a, b) = (unpack::<F>(environment, a), unpack::<F>(environment, b));
    if a.class == Class::Infinity && b.class == Class::Infinity && a.negative != b.negative {
        return invalid::<F>(environment);
    }
    note_denormals(environment, &[&a, &b]);
    match (a.class, b.class) {
        (Class::Infinity, _) => infinity::<F>(a.negative),
        (_, Class::Infinity) => infinity::<F>(b.negative),
        (Class::Zero, Class::Zero) if a.negative == b.negative => zero::<F>(a.negative),
        (Class::Zero, Class::Zero) => zero::<F>(environment.rounding == Rounding::Down),
        _ => sum::<F>(environment, Term::of(&a), Term::of(&b)),
    }
}

/// `a` * `b`.
#[inline]
pub(crate) fn multiply<F: Format>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    compute::<F>(environment, HostOperation::Multiply, a, b)
        .unwrap_or_else(|| multiply_slowly::<F>(environment, a, b))
}

pub(super) fn multiply_slowly<F: Format>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    if let Some(nan) = nan_of_two::<F>(environment, a, b) {
        return nan;
    }
    let (a, b) = (unpack::<F>(environment, a), unpack::<F>(environment, b));
    let negative = a.negative != b.negative;
    if matches!(
        (a.class, b.class),
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity)
    ) {
        return invalid::<F>(environment);
    }
    note_denormals(environment, &[&a, &b]);
    if a.class == Class::Infinity || b.class == Class::Infinity {
        return infinity::<F>(negative);
    }
    if a.class == Class::Zero || b.class == Class::Zero {
        return zero::<F>(negative);
    }
    let product = u128::from(a.significand) * u128::from(b.significand);
    pack::<F>(environment, negative, a.exponent + b.exponent + 1, product)
}

/// `a` / `b`.
#[inline]
pub(crate) fn divide<F: Format>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    compute::<F>(environment, HostOperation::Divide, a, b)
        .unwrap_or_else(|| divide_slowly::<F>(environment, a, b))
}

pub(super) fn divide_slowly<F: Format>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    if let Some(nan) = nan_of_two::<F>(environment, a, b) {
        return nan;
    }
    let (a, b) = (unpack::<F>(environment, a), unpack::<F>(environment, b));
    let negative = a.negative != b.negative;
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => return invalid::<F>(environment),
        (Class::Finite, Class::Zero) => {
            environment.raise(flag::DIVIDE);
            return infinity::<F>(negative);
        }
        _ => note_denormals(environment, &[&a, &b]),
    }
    if a.class == Class::Infinity || b.class == Class::Zero {
        return infinity::<F>(negative);
    }
    if a.class == Class::Zero || b.class == Class::Infinity {
        return zero::<F>(negative);
    }
    let dividend = u128::from(a.significand) << 63;
    let divisor = u128::from(b.significand);
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let significand = quotient << 64 | u128::from(rest != 0);
    pack::<F>(environment, negative, a.exponent - b.exponent, significand)
}

/// The square root of `a`.
#[inline]
pub(crate) fn square_root<F: Format>(environment: &mut Environment, a: u64) -> u64 {
    compute::<F>(environment, HostOperation::SquareRoot, a, 0)
        .unwrap_or_else(|| square_root_slowly::<F>(environment, a))
}

pub(super) fn square_root_slowly<F: Format>(environment: &mut Environment, a: u64) -> u64 {
    if let Some(nan) = nan_of_two::<F>(environment, a, a) {
        return nan;
    }
    let number = unpack::<F>(environment, a);
    if number.class == Class::Zero {
        return zero::<F>(number.negative);
    }
    if number.negative {
        return invalid::<F>(environment);
    }
    if number.class == Class::Infinity {
        return infinity::<F>(false);
    }
    note_denormals(environment, &[&number]);
    // With an even exponent the root has half of it.
    let odd = number.exponent & 1;
    let square = u128::from(number.significand) << (63 + odd);
    let root = square.isqrt();
    let significand = root << 64 | u128::from(root * root != square);
    pack::<F>(environment, false, (number.exponent - odd) / 2, significand)
}
