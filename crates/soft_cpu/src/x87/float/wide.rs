//! Numbers of 128 significant bits, twice what a register holds: enough to compute functions that have no exact
//! results, and to round them rightly but for cases that nobody will meet. Results are cut off, not rounded.

use super::rounding::round;
use super::{Context, Float, Outcome, flag};

/// `significand * 2^(exponent - 127)`, with the top bit set unless it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide {
    pub(super) negative: bool,
    pub(super) exponent: i32,
    pub(super) significand: u128,
}

/// 1.0 as fixed-point numbers have it: two bits before the point, 126 after it.
pub(super) const FIXED_ONE: u128 = 1 << 126;

/// The upper half of a product.
fn high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let (middle, low) = (a1 * b0, a0 * b0);
    let other = a0 * b1 + (low >> 64);
    let carried = (middle & LOW) + (other & LOW);
    a1 * b1 + (middle >> 64) + (other >> 64) + (carried >> 64)
}

/// The product of two fixed-point numbers that is below 4.
fn fixed_product(a: u128, b: u128) -> u128 {
    high(a, b) << 2
}

/// `c0 - z * (c1 - z * (c2 - ...))` of fixed-point numbers, of which each coefficient outweighs what follows it.
pub(super) fn alternating(z: u128, coefficients: &[u128]) -> u128 {
    let terms = coefficients.iter().rev();
    terms.fold(0, |sum, coefficient| coefficient - fixed_product(z, sum))
}

/// `c0 + z * (c1 + z * (c2 + ...))`.
pub(super) fn increasing(z: u128, coefficients: &[u128]) -> u128 {
    let terms = coefficients.iter().rev();
    terms.fold(0, |sum, coefficient| coefficient + fixed_product(z, sum))
}

impl Wide {
    pub(super) const ONE: Self = Self::constant(0, 1 << 127);
    pub(super) const PI: Self = Self::constant(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
    pub(super) const HALF_PI: Self = Self::constant(0, Self::PI.significand);
    pub(super) const LN_2: Self = Self::constant(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
    /// `2 / ln 2`.
    pub(super) const TWO_LOG2_E: Self = Self::constant(1, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88);

    pub(super) const fn constant(exponent: i32, significand: u128) -> Self {
        Self {
            negative: false,
            exponent,
            significand,
        }
    }

    /// `significand * 2^(exponent - 127)`, wherever its top bit is.
    pub(super) fn new(negative: bool, exponent: i32, significand: u128) -> Self {
        let shift = significand.leading_zeros() & 127;
        Self {
            negative,
            exponent: exponent - shift as i32,
            significand: significand << shift,
        }
    }

    /// A finite number that is not zero.
    pub(super) fn of(value: Float) -> Self {
        let parts = value.parts();
        Self {
            negative: parts.negative,
            exponent: parts.exponent,
            significand: u128::from(parts.significand) << 64,
        }
    }

    pub(super) fn integer(value: i32) -> Self {
        Self::new(value < 0, 127, value.unsigned_abs().into())
    }

    /// A fixed-point number.
    pub(super) fn of_fixed(value: u128) -> Self {
        Self::new(false, 1, value)
    }

    /// The magnitude, below 4, as a fixed-point number.
    pub(super) fn to_fixed(self) -> u128 {
        let shift = (1 - self.exponent).max(0) as u32;
        self.significand.checked_shr(shift).unwrap_or(0)
    }

    pub(super) fn is_zero(self) -> bool {
        self.significand == 0
    }

    pub(super) fn negated(self) -> Self {
        self.with_sign(!self.negative)
    }

    pub(super) fn with_sign(self, negative: bool) -> Self {
        Self { negative, ..self }
    }

    pub(super) fn times(self, other: Self) -> Self {
        let product = high(self.significand, other.significand);
        Self::new(
            self.negative ^ other.negative,
            self.exponent + other.exponent + 1,
            product,
        )
    }

    pub(super) fn squared(self) -> Self {
        self.times(self)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        if self.is_zero() {
            return other;
        }
        if other.is_zero() {
            return self;
        }
        let swap = (self.exponent, self.significand) < (other.exponent, other.significand);
        let (large, small) = if swap { (other, self) } else { (self, other) };
        let distance = (large.exponent - small.exponent) as u32;
        let right = small.significand.checked_shr(distance).unwrap_or(0);
        if large.negative != small.negative {
            return Self::new(large.negative, large.exponent, large.significand - right);
        }
        let (sum, carry) = large.significand.overflowing_add(right);
        if carry {
            return Self::new(large.negative, large.exponent + 1, sum >> 1 | 1 << 127);
        }
        Self::new(large.negative, large.exponent, sum)
    }

    /// The quotient; `other` is not zero.
    pub(super) fn over(self, other: Self) -> Self {
        if self.is_zero() {
            return self;
        }
        // One bit of the quotient at a time, after the first: both have their top bits set.
        let mut quotient = 0_u128;
        let mut rest = self.significand;
        let mut carry = false;
        for _ in 0..128 {
            let fits = carry || rest >= other.significand;
            quotient = quotient << 1 | u128::from(fits);
            if fits {
                rest = rest.wrapping_sub(other.significand);
            }
            carry = rest >> 127 != 0;
            rest <<= 1;
        }
        Self::new(
            self.negative ^ other.negative,
            self.exponent - other.exponent,
            quotient,
        )
    }

    /// Rounds to a register. The number is not zero, and stands for one that no register holds exactly.
    pub(super) fn outcome(self, context: &Context) -> Outcome {
        round(self.negative, self.exponent, self.significand | 1, context).with(flag::PRECISION)
    }
}
