//! Packed shifts: counts beyond the width of a lane clear it, or fill it with its sign.

use super::{Lane, map};

/// `PSLLx`.
#[inline]
pub(crate) fn shift_left<T: Lane>(a: u64, count: u64) -> u64 {
    if count >= T::BITS.into() {
        return 0;
    }
    let kept = u64::MAX >> (64 - T::BITS);
    let mut mask = 0;
    let mut at = 0;
    while at < 64 {
        mask |= (kept << count & kept) << at;
        at += T::BITS;
    }
    a << count & mask
}

/// `PSRLx`.
#[inline]
pub(crate) fn shift_right<T: Lane>(a: u64, count: u64) -> u64 {
    if count >= T::BITS.into() {
        return 0;
    }
    let kept = u64::MAX >> (64 - T::BITS);
    let mut mask = 0;
    let mut at = 0;
    while at < 64 {
        mask |= (kept >> count) << at;
        at += T::BITS;
    }
    a >> count & mask
}

/// `PSRAW`.
#[inline]
pub(crate) fn shift_right_signed16(a: u64, count: u64) -> u64 {
    map::<i16>(a, |lane| lane >> count.min(15))
}

/// `PSRAD`.
#[inline]
pub(crate) fn shift_right_signed32(a: u64, count: u64) -> u64 {
    map::<i32>(a, |lane| lane >> count.min(31))
}

/// `PSLLDQ`.
#[inline]
pub(crate) fn bytes_left(a: u128, count: u8) -> u128 {
    if count > 15 { 0 } else { a << (count * 8) }
}

/// `PSRLDQ`.
#[inline]
pub(crate) fn bytes_right(a: u128, count: u8) -> u128 {
    if count > 15 { 0 } else { a >> (count * 8) }
}
