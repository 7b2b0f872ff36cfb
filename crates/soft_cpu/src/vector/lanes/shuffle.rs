//! Packed moves inside and between registers, and what works across lanes.

use super::{Lane, sum_of_differences};

/// Lanes of `T` in 128 bits.
#[inline]
fn lane<T: Lane>(a: u128, index: u32) -> T {
    T::take((a >> (index * T::BITS)) as u64)
}

#[inline]
fn place<T: Lane>(value: T, index: u32) -> u128 {
    u128::from(value.put()) << (index * T::BITS)
}

/// `PACKxx`: lanes of `a`, then of `b`, each made half as wide.
#[inline]
pub(crate) fn pack<S: Lane, D: Lane>(a: u128, b: u128, narrow: impl Fn(S) -> D) -> u128 {
    let count = 128 / S::BITS;
    (0..count).fold(0, |result, index| {
        result | place(narrow(lane(a, index)), index) | place(narrow(lane(b, index)), index + count)
    })
}

/// `PUNPCKLxx` and, of upper halves, `PUNPCKHxx`: lanes of `a` and `b` in turn.
#[inline]
pub(crate) fn interleave<T: Lane>(a: u64, b: u64) -> u128 {
    (0..64 / T::BITS).fold(0, |result, index| {
        let (x, y) = (lane::<T>(a.into(), index), lane::<T>(b.into(), index));
        result | place(x, index * 2) | place(y, index * 2 + 1)
    })
}

/// `PHADDx`, `PHSUBx`: neighbours of `a`, then of `b`, made one.
#[inline]
pub(crate) fn horizontal<T: Lane>(a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128 {
    let count = 64 / T::BITS;
    (0..count).fold(0, |result, index| {
        let pair = |source| f(lane(source, index * 2), lane(source, index * 2 + 1));
        result | place(pair(a), index) | place(pair(b), index + count)
    })
}

/// `PSHUFB`: bytes of `a` as those of `control` name them.
#[inline]
pub(crate) fn shuffle_bytes(a: u128, control: u128) -> u128 {
    let (from, control) = (a.to_le_bytes(), control.to_le_bytes());
    u128::from_le_bytes(control.map(|index| {
        if index & 0x80 != 0 {
            0
        } else {
            from[usize::from(index & 15)]
        }
    }))
}

/// `PSHUFLW`, `PSHUFHW`, `PSHUFW`: words of `a`, two bits of `order` each.
#[inline]
pub(crate) fn shuffle_words(a: u64, order: u8) -> u64 {
    (0..4).fold(0, |result, index| {
        let from = order >> (index * 2) & 3;
        result | (a >> (from * 16) & 0xffff) << (index * 16)
    })
}

/// `PSHUFD`: doublewords of `a`, two bits of `order` each.
#[inline]
pub(crate) fn shuffle_doublewords(a: u128, order: u8) -> u128 {
    (0..4).fold(0, |result, index| {
        result | place(lane::<u32>(a, u32::from(order >> (index * 2) & 3)), index)
    })
}

/// `SHUFPS`: two doublewords of `a`, then two of `b`.
#[inline]
pub(crate) fn shuffle_two(a: u128, b: u128, order: u8) -> u128 {
    let low = shuffle_doublewords(a, order) as u64;
    let high = shuffle_doublewords(b, order) >> 64 << 64;
    high | u128::from(low)
}

/// `SHUFPD`: one quadword of `a`, then one of `b`.
#[inline]
pub(crate) fn shuffle_quadwords(a: u128, b: u128, order: u8) -> u128 {
    place(lane::<u64>(a, u32::from(order & 1)), 0) | place(lane::<u64>(b, u32::from(order >> 1 & 1)), 1)
}

/// `PALIGNR`: 16 bytes out of `a` above `b`, from byte `count` on.
#[inline]
pub(crate) fn align(a: u128, b: u128, count: u8) -> u128 {
    let bits = u32::from(count) * 8;
    match bits {
        0 => b,
        1..128 => b >> bits | a << (128 - bits),
        128..256 => a >> (bits - 128),
        _ => 0,
    }
}

/// `MPSADBW`: eight sums of differences between four bytes of `b` and four of `a` from eight neighbouring places.
#[inline]
pub(crate) fn sums_of_differences(a: u128, b: u128, control: u8) -> u128 {
    let block = (b >> (u32::from(control & 3) * 32)) as u32;
    let window = a >> (u32::from(control >> 2 & 1) * 32);
    (0..8).fold(0, |result, index| {
        let there = (window >> (index * 8)) as u32;
        result | place(sum_of_differences(block.into(), there.into()) as u16, index)
    })
}

/// `PHMINPOSUW`: the smallest word and where it is first.
#[inline]
pub(crate) fn smallest_word(a: u128) -> u128 {
    let words = (0..8).map(|index| (lane::<u16>(a, index), index));
    let (value, index) = words.min().unwrap_or_default();
    u128::from(value) | u128::from(index) << 16
}
