//! Comparisons, minimum and maximum.

use std::cmp::Ordering;

use super::{Class, Environment, Format, flag, is_nan, is_signaling, unpack};

/// The order of two numbers; `None` where one is a NaN. Quiet ones are invalid only where `signals`.
pub(crate) fn order<F: Format>(
    environment: &mut Environment,
    a: u64,
    b: u64,
    signals: bool,
) -> Option<Ordering> {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        if signals || is_signaling::<F>(a) || is_signaling::<F>(b) {
            environment.raise(flag::INVALID);
        }
        return None;
    }
    Some(compare_numbers::<F>(environment, a, b))
}

/// The order of two operands that are no NaNs.
fn compare_numbers<F: Format>(environment: &mut Environment, a: u64, b: u64) -> Ordering {
    let key = |environment: &mut Environment, bits: u64| {
        let number = unpack::<F>(environment, bits);
        if number.denormal {
            environment.raise(flag::DENORMAL);
        }
        // Bits without sign are in the order of numbers.
        let magnitude = if number.class == Class::Zero {
            0
        } else {
            (bits & !F::SIGN) as i64
        };
        if number.negative { -magnitude } else { magnitude }
    };
    let (a, b) = (key(environment, a), key(environment, b));
    a.cmp(&b)
}

/// `MINxx`: `b` unless `a` is less (Intel SDM vol. 2, MINPS).
pub(crate) fn minimum<F: Format>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    let chosen = order::<F>(environment, a, b, true) == Some(Ordering::Less);
    flushed::<F>(environment, if chosen { a } else { b })
}

/// `MAXxx`: `b` unless `a` is greater.
pub(crate) fn maximum<F: Format>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    let chosen = order::<F>(environment, a, b, true) == Some(Ordering::Greater);
    flushed::<F>(environment, if chosen { a } else { b })
}

/// An operand as denormals-are-zeros changes it.
fn flushed<F: Format>(environment: &Environment, bits: u64) -> u64 {
    let tiny = environment.denormals_are_zeros && bits & F::EXPONENT_MASK == 0;
    if tiny { bits & F::SIGN } else { bits }
}

/// Whether predicate `number` of `CMPxx` holds (Intel SDM vol. 2, table 3-1). Bit 4 turns around which of them
/// signal quiet NaNs.
pub(crate) fn predicate<F: Format>(environment: &mut Environment, a: u64, b: u64, number: u8) -> bool {
    let signals = matches!(number & 0xf, 1 | 2 | 5 | 6 | 9 | 10 | 13 | 14) != (number & 0x10 != 0);
    let order = order::<F>(environment, a, b, signals);
    // Bits: less, equal, greater, unordered.
    let holds: u8 = match number & 0xf {
        0 => 0b0010,
        1 => 0b0001,
        2 => 0b0011,
        3 => 0b1000,
        4 => 0b1101,
        5 => 0b1110,
        6 => 0b1100,
        7 => 0b0111,
        8 => 0b1010,
        9 => 0b1001,
        10 => 0b1011,
        11 => 0b0000,
        12 => 0b0101,
        13 => 0b0110,
        14 => 0b0100,
        _ => 0b1111,
    };
    let bit = match order {
        Some(Ordering::Less) => 0,
        Some(Ordering::Equal) => 1,
        Some(Ordering::Greater) => 2,
        None => 3,
    };
    holds >> bit & 1 != 0
}
