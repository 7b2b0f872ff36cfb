//! Packed decimal numbers: 18 digits and a sign (Intel SDM vol. 1, 4.7).

use super::convert::{from_magnitude, integral};
use super::{Class, Context, Float, flag};

/// What does not fit: a code that is no number.
const INDEFINITE: u128 = 0xffff_c000 << 48;
const LIMIT: u64 = 999_999_999_999_999_999;

/// The number of ten bytes. Digits above nine count what they say.
pub(in super::super) fn from_decimal(bytes: u128) -> Float {
    let digits = (0..18).rev().map(|digit| (bytes >> (4 * digit)) as u64 & 0xf);
    let magnitude = digits.fold(0_u64, |number, digit| number * 10 + digit);
    from_magnitude(bytes >> 79 & 1 != 0, magnitude)
}

/// The ten bytes of a rounded number, and flags.
pub(in super::super) fn to_decimal(value: Float, context: &Context) -> (u128, u16) {
    let finite = matches!(value.class(), Class::Zero | Class::Normal | Class::Denormal);
    let rounded = if finite {
        integral(value, context.round)
    } else {
        None
    };
    match rounded {
        Some((magnitude, flags)) if magnitude <= LIMIT => {
            let mut rest = magnitude;
            let mut bytes = u128::from(value.negative) << 79;
            for digit in 0..18 {
                bytes |= u128::from(rest % 10) << (4 * digit);
                rest /= 10;
            }
            (bytes, flags)
        }
        _ => (INDEFINITE, flag::INVALID),
    }
}
