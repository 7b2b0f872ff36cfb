//! Binary interchange formats (IEEE 754-2008, 3.4), and numbers taken apart.

use super::Environment;

/// A format with 1 sign bit, some exponent bits and some fraction bits.
pub(crate) trait Format: Copy {
    /// Bits of the fraction, without the leading one.
    const FRACTION: u32;
    /// Width of the whole number.
    const BITS: u32;

    /// The result of host arithmetic, which rounds to nearest.
    fn host(operation: HostOperation, a: u64, b: u64) -> u64;

    const SIGN: u64 = 1 << (Self::BITS - 1);
    const ALL: u64 = u64::MAX >> (64 - Self::BITS);
    const FRACTION_MASK: u64 = (1 << Self::FRACTION) - 1;
    const EXPONENT_MASK: u64 = Self::SIGN - (1 << Self::FRACTION);
    /// The bit that makes a NaN quiet.
    const QUIET: u64 = 1 << (Self::FRACTION - 1);
    const INFINITY: u64 = Self::EXPONENT_MASK;
    /// What invalid operations give (Intel SDM vol. 1, 4.8.3.7).
    const DEFAULT_NAN: u64 = Self::SIGN | Self::EXPONENT_MASK | Self::QUIET;
    /// The exponent of the largest numbers; also the bias.
    const MAX_EXPONENT: i32 = (1 << (Self::BITS - Self::FRACTION - 2)) - 1;
    /// The exponent of the smallest normal number.
    const MIN_EXPONENT: i32 = 1 - Self::MAX_EXPONENT;
}

/// What hosts compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostOperation {
    Add,
    Subtract,
    Multiply,
    Divide,
    SquareRoot,
}

/// 16 bits; only converted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Half;
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single;
#[derive(Clone, Copy, Debug)]
pub(crate) struct Double;

impl Format for Half {
    const FRACTION: u32 = 10;
    const BITS: u32 = 16;
    fn host(_: HostOperation, _: u64, _: u64) -> u64 {
        Self::DEFAULT_NAN
    }
}

macro_rules! host {
    ($format:ty, $float:ty, $bits:ty, $fraction:expr) => {
        impl Format for $format {
            const FRACTION: u32 = $fraction;
            const BITS: u32 = <$bits>::BITS;
            #[inline]
            fn host(operation: HostOperation, a: u64, b: u64) -> u64 {
                let (a, b) = (
                    <$float>::from_bits(a as $bits),
                    <$float>::from_bits(b as $bits),
                );
                let result = match operation {
                    HostOperation::Add => a + b,
                    HostOperation::Subtract => a - b,
                    HostOperation::Multiply => a * b,
                    HostOperation::Divide => a / b,
                    HostOperation::SquareRoot => a.sqrt(),
                };
                u64::from(result.to_bits())
            }
        }
    };
}

host!(Single, f32, u32, 23);
host!(Double, f64, u64, 52);

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Zero,
    Finite,
    Infinity,
    QuietNan,
    SignalingNan,
}

/// A number taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpacked {
    pub(crate) class: Class,
    pub(crate) negative: bool,
    /// It is finite, and `significand` / 2^63 * 2^`exponent`, with bit 63 set.
    pub(crate) exponent: i32,
    pub(crate) significand: u64,
    /// It is finite and has no leading one in its format.
    pub(crate) denormal: bool,
}

/// Whether `bits` are no number.
#[inline]
pub(crate) fn is_nan<F: Format>(bits: u64) -> bool {
    bits & !F::SIGN > F::INFINITY
}

/// Whether `bits` are a NaN that must not go unnoticed.
#[inline]
pub(crate) fn is_signaling<F: Format>(bits: u64) -> bool {
    is_nan::<F>(bits) && bits & F::QUIET == 0
}

/// Takes a number apart. With denormals-are-zeros there are no denormals.
pub(crate) fn unpack<F: Format>(environment: &Environment, bits: u64) -> Unpacked {
    let negative = bits & F::SIGN != 0;
    let (exponent, fraction) = (bits & F::EXPONENT_MASK, bits & F::FRACTION_MASK);
    let special = |class| Unpacked {
        class,
        negative,
        exponent: 0,
        significand: 0,
        denormal: false,
    };
    if exponent == F::EXPONENT_MASK {
        return special(match (fraction, fraction & F::QUIET) {
            (0, _) => Class::Infinity,
            (_, 0) => Class::SignalingNan,
            _ => Class::QuietNan,
        });
    }
    let denormal = exponent == 0;
    if denormal && (fraction == 0 || environment.denormals_are_zeros) {
        return special(Class::Zero);
    }
    if denormal {
        let shift = fraction.leading_zeros();
        return Unpacked {
            class: Class::Finite,
            negative,
            exponent: F::MIN_EXPONENT + (63 - F::FRACTION as i32) - shift as i32,
            significand: fraction << shift,
            denormal,
        };
    }
    Unpacked {
        class: Class::Finite,
        negative,
        exponent: (exponent >> F::FRACTION) as i32 - F::MAX_EXPONENT,
        significand: (fraction | 1 << F::FRACTION) << (63 - F::FRACTION),
        denormal,
    }
}

/// A zero with this sign.
#[inline]
pub(crate) fn zero<F: Format>(negative: bool) -> u64 {
    if negative { F::SIGN } else { 0 }
}

/// An infinity with this sign.
#[inline]
pub(crate) fn infinity<F: Format>(negative: bool) -> u64 {
    F::INFINITY | zero::<F>(negative)
}
