//! Packed arithmetic (Intel SDM vol. 1, 9.4 and 11.4.2).

use super::{map, map2};

/// `PAVGB`, `PAVGW`: means, rounded up.
pub(crate) fn average8(a: u64, b: u64) -> u64 {
    map2::<u8>(a, b, |x, y| ((u16::from(x) + u16::from(y) + 1) >> 1) as u8)
}

pub(crate) fn average16(a: u64, b: u64) -> u64 {
    map2::<u16>(a, b, |x, y| ((u32::from(x) + u32::from(y) + 1) >> 1) as u16)
}

/// `PMULHW`: upper halves of signed products.
pub(crate) fn multiply_high_signed(a: u64, b: u64) -> u64 {
    map2::<i16>(a, b, |x, y| ((i32::from(x) * i32::from(y)) >> 16) as i16)
}

/// `PMULHUW`: upper halves of unsigned products.
pub(crate) fn multiply_high(a: u64, b: u64) -> u64 {
    map2::<u16>(a, b, |x, y| ((u32::from(x) * u32::from(y)) >> 16) as u16)
}

/// `PMULHRSW`: signed products of fractions, rounded.
pub(crate) fn multiply_rounded(a: u64, b: u64) -> u64 {
    map2::<i16>(a, b, |x, y| {
        (((i32::from(x) * i32::from(y)) >> 14).wrapping_add(1) >> 1) as i16
    })
}

/// `PMULUDQ`: the product of the low halves.
pub(crate) fn multiply_even(a: u64, b: u64) -> u64 {
    u64::from(a as u32) * u64::from(b as u32)
}

/// `PMULDQ`: the signed product of the low halves.
pub(crate) fn multiply_even_signed(a: u64, b: u64) -> u64 {
    (i64::from(a as i32) * i64::from(b as i32)) as u64
}

/// `PMADDWD`: sums of two signed products each.
pub(crate) fn multiply_add_words(a: u64, b: u64) -> u64 {
    map2::<i32>(a, b, |x, y| {
        let low = i32::from(x as i16) * i32::from(y as i16);
        let high = (x >> 16) * (y >> 16);
        low.wrapping_add(high)
    })
}

/// `PMADDUBSW`: saturated sums of two products each, of unsigned bytes of `a` and signed ones of `b`.
pub(crate) fn multiply_add_bytes(a: u64, b: u64) -> u64 {
    map2::<u16>(a, b, |x, y| {
        let low = i32::from(x as u8) * i32::from(y as i8);
        let high = i32::from((x >> 8) as u8) * i32::from((y >> 8) as i8);
        saturate_i16(low + high) as u16
    })
}

/// `PSADBW`: the sum of the differences of all bytes.
pub(crate) fn sum_of_differences(a: u64, b: u64) -> u64 {
    a.to_le_bytes()
        .iter()
        .zip(b.to_le_bytes())
        .map(|(&x, y)| u64::from(x.abs_diff(y)))
        .sum()
}

/// `PABSx`.
pub(crate) fn absolute8(a: u64) -> u64 {
    map::<i8>(a, i8::wrapping_abs)
}

pub(crate) fn absolute16(a: u64) -> u64 {
    map::<i16>(a, i16::wrapping_abs)
}

pub(crate) fn absolute32(a: u64) -> u64 {
    map::<i32>(a, i32::wrapping_abs)
}

/// `PSIGNx`: lanes of `a`, negated or cleared by the signs of `b`.
pub(crate) fn sign8(a: u64, b: u64) -> u64 {
    map2::<i8>(a, b, |x, y| x.wrapping_mul(y.signum()))
}

pub(crate) fn sign16(a: u64, b: u64) -> u64 {
    map2::<i16>(a, b, |x, y| x.wrapping_mul(y.signum()))
}

pub(crate) fn sign32(a: u64, b: u64) -> u64 {
    map2::<i32>(a, b, |x, y| x.wrapping_mul(y.signum()))
}

/// The nearest number that the narrower type has.
pub(crate) fn saturate_i16(value: i32) -> i16 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

pub(crate) fn saturate_u16(value: i32) -> u16 {
    value.clamp(0, u16::MAX.into()) as u16
}

pub(crate) fn saturate_i8(value: i16) -> i8 {
    value.clamp(i8::MIN.into(), i8::MAX.into()) as i8
}

pub(crate) fn saturate_u8(value: i16) -> u8 {
    value.clamp(0, u8::MAX.into()) as u8
}
