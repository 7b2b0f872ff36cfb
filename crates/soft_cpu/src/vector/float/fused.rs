//! Multiplication and addition with one rounding.

use super::arithmetic::{Term, invalid, note_denormals, sum};
use super::rounding::pack;
use super::{Class, Environment, Format, Rounding, flag, infinity, is_nan, is_signaling, unpack, zero};

/// `a` * `b` + `c`. Of several NaNs the first of `order` is the result.
pub(crate) fn multiply_add<F: Format>(
    environment: &mut Environment,
    [a, b, c]: [u64; 3],
    order: [u64; 3],
) -> u64 {
    if let Some(nan) = order.into_iter().find(|&operand| is_nan::<F>(operand)) {
        if order.into_iter().any(is_signaling::<F>) {
            environment.raise(flag::INVALID);
        }
        return nan | F::QUIET;
    }
    let [a, b, c] = [a, b, c].map(|operand| unpack::<F>(environment, operand));
    let negative = a.negative != b.negative;
    let infinite = a.class == Class::Infinity || b.class == Class::Infinity;
    let nothing = a.class == Class::Zero || b.class == Class::Zero;
    let opposite = c.class == Class::Infinity && c.negative != negative;
    if infinite && (nothing || opposite) {
        return invalid::<F>(environment);
    }
    note_denormals(environment, &[&a, &b, &c]);
    if infinite {
        return infinity::<F>(negative);
    }
    if c.class == Class::Infinity {
        return infinity::<F>(c.negative);
    }
    if nothing && c.class == Class::Zero {
        let both = negative == c.negative;
        return zero::<F>(if both {
            negative
        } else {
            environment.rounding == Rounding::Down
        });
    }
    if nothing {
        return pack::<F>(
            environment,
            c.negative,
            c.exponent,
            u128::from(c.significand) << 64,
        );
    }
    // The product has at least 22 zeros at its end: a shift by one loses nothing.
    let product = u128::from(a.significand) * u128::from(b.significand);
    let shift = product.leading_zeros();
    let term = Term {
        negative,
        exponent: a.exponent + b.exponent + 1 - shift as i32,
        significand: product << shift >> 1,
    };
    sum::<F>(environment, term, Term::of(&c))
}
