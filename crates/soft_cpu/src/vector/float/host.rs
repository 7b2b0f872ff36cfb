//! Where the host's arithmetic does.

use super::{Environment, Format, HostOperation, Rounding};

/// A zero or a normal number.
#[inline]
fn is_plain<F: Format>(bits: u64) -> bool {
    let exponent = bits & F::EXPONENT_MASK;
    exponent.wrapping_sub(1 << F::FRACTION) < F::EXPONENT_MASK - (1 << F::FRACTION) || is_zero::<F>(bits)
}

#[inline]
fn is_zero<F: Format>(bits: u64) -> bool {
    bits & !F::SIGN == 0
}

/// A result that is neither tiny nor near it, nor an overflow.
#[inline]
fn is_safe<F: Format>(bits: u64) -> bool {
    let exponent = bits & F::EXPONENT_MASK;
    exponent > 1 << F::FRACTION && exponent != F::EXPONENT_MASK
}

/// How many bits of a significand are in use.
#[inline]
fn width<F: Format>(bits: u64) -> u32 {
    let significand = bits & F::FRACTION_MASK | 1 << F::FRACTION;
    F::FRACTION + 1 - significand.trailing_zeros()
}

/// The result of `operation`, where the host gives it and nothing has to be raised that is not known: the result is
/// exact, or it does not matter whether it is.
#[inline]
pub(super) fn compute<F: Format>(
    environment: &Environment,
    operation: HostOperation,
    a: u64,
    b: u64,
) -> Option<u64> {
    if environment.rounding != Rounding::Nearest || !is_plain::<F>(a) || !is_plain::<F>(b) {
        return None;
    }
    let settled = environment.is_settled();
    let result = F::host(operation, a, b);
    let good = match operation {
        // A sum can only be zero if it is exact.
        HostOperation::Add | HostOperation::Subtract => {
            (is_safe::<F>(result) || is_zero::<F>(result))
                && (settled || is_exact_sum::<F>(operation, a, b, result))
        }
        HostOperation::Multiply => {
            let zero = is_zero::<F>(a) || is_zero::<F>(b);
            zero || is_safe::<F>(result) && (settled || width::<F>(a) + width::<F>(b) <= F::FRACTION + 1)
        }
        HostOperation::Divide => settled && !is_zero::<F>(b) && (is_safe::<F>(result) || is_zero::<F>(a)),
        HostOperation::SquareRoot => is_zero::<F>(a) || settled && a & F::SIGN == 0,
    };
    good.then_some(result)
}

/// Whether `sum` is `a` + `b` (or - `b`) without any error: what is missing of each operand comes out by subtracting
/// the other, exactly (Knuth's TwoSum).
fn is_exact_sum<F: Format>(operation: HostOperation, a: u64, b: u64, sum: u64) -> bool {
    let b = if operation == HostOperation::Subtract {
        b ^ F::SIGN
    } else {
        b
    };
    let subtract = |x, y| F::host(HostOperation::Subtract, x, y);
    let of_b = subtract(sum, a);
    let of_a = subtract(sum, of_b);
    is_zero::<F>(subtract(a, of_a)) && is_zero::<F>(subtract(b, of_b))
}
