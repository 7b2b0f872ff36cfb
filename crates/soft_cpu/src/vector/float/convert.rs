//! Conversions between formats, to and from integers, and to integers of the same format.

use super::arithmetic::{nan_of_two, note_denormals};
use super::rounding::{pack, round_off, shift_right_sticky};
use super::{Class, Environment, Format, Rounding, Unpacked, flag, infinity, is_nan, unpack, zero};

/// From one format to another.
pub(crate) fn convert<S: Format, D: Format>(environment: &mut Environment, a: u64) -> u64 {
    let number = unpack::<S>(environment, a);
    let sign = zero::<D>(number.negative);
    if let Some(nan) = nan_of_two::<S>(environment, a, a) {
        let payload = nan & S::FRACTION_MASK;
        let fraction = if D::FRACTION > S::FRACTION {
            payload << (D::FRACTION - S::FRACTION)
        } else {
            payload >> (S::FRACTION - D::FRACTION)
        };
        return sign | D::EXPONENT_MASK | fraction;
    }
    note_denormals(environment, &[&number]);
    match number.class {
        Class::Zero => sign,
        Class::Finite => pack::<D>(
            environment,
            number.negative,
            number.exponent,
            u128::from(number.significand) << 64,
        ),
        _ => infinity::<D>(number.negative),
    }
}

/// The magnitude of a finite number below 2^64, as an integer, and whether it was none.
fn integral(number: &Unpacked, rounding: Rounding) -> (u128, bool) {
    let mut significand = u128::from(number.significand) << 63;
    let mut exponent = number.exponent;
    if exponent < -1 {
        significand = shift_right_sticky(significand, (-1 - exponent) as u32);
        exponent = -1;
    }
    round_off(rounding, number.negative, significand, (126 - exponent) as u32)
}

/// To a signed integer of `bits` bits; what does not fit is the integer indefinite (Intel SDM vol. 1, table 4-1 and
/// 11.5.2.1).
pub(crate) fn to_integer<F: Format>(
    environment: &mut Environment,
    a: u64,
    bits: u32,
    rounding: Rounding,
) -> u64 {
    let number = unpack::<F>(environment, a);
    let limit = 1_u128 << (bits - 1);
    if number.class == Class::Zero {
        return 0;
    }
    if number.class == Class::Finite && number.exponent < 64 {
        let (magnitude, inexact) = integral(&number, rounding);
        if magnitude < limit + u128::from(number.negative) {
            if inexact {
                environment.raise(flag::PRECISION);
            }
            let value = if number.negative {
                (magnitude as u64).wrapping_neg()
            } else {
                magnitude as u64
            };
            return value & u64::MAX >> (64 - bits);
        }
    }
    environment.raise(flag::INVALID);
    limit as u64
}

/// From a signed integer.
pub(crate) fn from_integer<F: Format>(environment: &mut Environment, a: i64) -> u64 {
    if a == 0 {
        return 0;
    }
    pack::<F>(environment, a < 0, 127, u128::from(a.unsigned_abs()))
}

/// `ROUNDxx`: to an integer in the same format; inexact results are noted where `notes`.
pub(crate) fn round_to_integral<F: Format>(
    environment: &mut Environment,
    a: u64,
    rounding: Rounding,
    notes: bool,
) -> u64 {
    if is_nan::<F>(a) {
        return nan_of_two::<F>(environment, a, a).unwrap_or(a);
    }
    let number = unpack::<F>(environment, a);
    if number.class == Class::Zero {
        return zero::<F>(number.negative);
    }
    if number.class == Class::Infinity || number.exponent >= F::FRACTION as i32 {
        return a;
    }
    let (magnitude, inexact) = integral(&number, rounding);
    if inexact && notes {
        environment.raise(flag::PRECISION);
    }
    if magnitude == 0 {
        return zero::<F>(number.negative);
    }
    // It has fewer bits than the format: nothing is raised.
    pack::<F>(environment, number.negative, 127, magnitude)
}
