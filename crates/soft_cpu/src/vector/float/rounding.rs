//! From an exact result to one that fits.

use super::{Environment, Format, Rounding, flag, infinity, zero};

/// `value` shifted right; bits that fall out leave bit 0 set.
#[inline]
pub(super) fn shift_right_sticky(value: u128, count: u32) -> u128 {
    match count {
        0 => value,
        1..128 => value >> count | u128::from(value << (128 - count) != 0),
        _ => u128::from(value != 0),
    }
}

/// `significand` without its low `drop` bits (1 to 127), rounded; and whether they were not all zeros.
#[inline]
pub(super) fn round_off(rounding: Rounding, negative: bool, significand: u128, drop: u32) -> (u128, bool) {
    let kept = significand >> drop;
    let rest = significand & ((1 << drop) - 1);
    let half = 1 << (drop - 1);
    let up = match rounding {
        Rounding::Nearest => rest > half || rest == half && kept & 1 != 0,
        Rounding::Down => negative && rest != 0,
        Rounding::Up => !negative && rest != 0,
        Rounding::TowardsZero => false,
    };
    (kept + u128::from(up), rest != 0)
}

/// Rounds `significand` / 2^127 * 2^`exponent` (not zero) to the format, and raises what follows from that.
pub(super) fn pack<F: Format>(
    environment: &mut Environment,
    negative: bool,
    exponent: i32,
    significand: u128,
) -> u64 {
    let shift = significand.leading_zeros();
    let (exponent, significand) = (exponent - shift as i32, significand << shift);
    let drop = 127 - F::FRACTION;
    let sign = zero::<F>(negative);
    let (rounded, inexact) = round_off(environment.rounding, negative, significand, drop);
    let carried = (rounded >> (F::FRACTION + 1)) as i32;
    // Tininess is looked for after rounding, as if the exponent had no limits (Intel SDM vol. 1, 4.9.1.5).
    if exponent + carried < F::MIN_EXPONENT {
        return sign | pack_tiny::<F>(environment, negative, exponent, significand, inexact);
    }
    if exponent + carried > F::MAX_EXPONENT {
        let noted = inexact || environment.masks(flag::OVERFLOW);
        environment.raise(flag::OVERFLOW | if noted { flag::PRECISION } else { 0 });
        let to_infinity = match environment.rounding {
            Rounding::Nearest => true,
            Rounding::Down => negative,
            Rounding::Up => !negative,
            Rounding::TowardsZero => false,
        };
        return if to_infinity {
            infinity::<F>(negative)
        } else {
            sign | (F::INFINITY - 1)
        };
    }
    if inexact {
        environment.raise(flag::PRECISION);
    }
    // The leading one, and a carry beyond it, count the exponent up.
    let below = i64::from(exponent + F::MAX_EXPONENT - 1) as u64;
    sign | (below << F::FRACTION).wrapping_add(rounded as u64)
}

/// The bits, without sign, of a result below the smallest normal number; `inexact` says whether it would be inexact
/// if the exponent had no limits, which is what counts where the exception is not masked (Intel SDM vol. 1, 4.9.1.5).
fn pack_tiny<F: Format>(
    environment: &mut Environment,
    negative: bool,
    exponent: i32,
    significand: u128,
    inexact: bool,
) -> u64 {
    if environment.flush_to_zero {
        environment.raise(flag::UNDERFLOW | flag::PRECISION);
        return 0;
    }
    if !environment.masks(flag::UNDERFLOW) {
        environment.raise(flag::UNDERFLOW | if inexact { flag::PRECISION } else { 0 });
        return 0;
    }
    let shifted = shift_right_sticky(significand, (F::MIN_EXPONENT - exponent) as u32);
    let (rounded, inexact) = round_off(environment.rounding, negative, shifted, 127 - F::FRACTION);
    if inexact {
        environment.raise(flag::UNDERFLOW | flag::PRECISION);
    }
    rounded as u64
}
