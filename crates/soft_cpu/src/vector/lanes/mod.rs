//! What packed instructions do with integers, as pure functions: on 64 bits where the halves of a register do not
//! meet, on 128 where they do.

mod aes;
mod arithmetic;
mod shift;
mod shuffle;

pub(crate) use aes::*;
pub(crate) use arithmetic::*;
pub(crate) use shift::*;
pub(crate) use shuffle::*;

/// An integer of a packed register.
pub(crate) trait Lane: Copy {
    const BITS: u32;
    /// The lowest lane of `chunk`.
    fn take(chunk: u64) -> Self;
    /// This lane alone.
    fn put(self) -> u64;
}

macro_rules! lane {
    ($($signed:ty, $unsigned:ty;)+) => {
        $(
            impl Lane for $signed {
                const BITS: u32 = <$signed>::BITS;
                #[inline]
                fn take(chunk: u64) -> Self {
                    chunk as $signed
                }
                #[inline]
                fn put(self) -> u64 {
                    (self as $unsigned).into()
                }
            }
            impl Lane for $unsigned {
                const BITS: u32 = <$unsigned>::BITS;
                #[inline]
                fn take(chunk: u64) -> Self {
                    chunk as $unsigned
                }
                #[inline]
                fn put(self) -> u64 {
                    self.into()
                }
            }
        )+
    };
}

lane! {
    i8, u8;
    i16, u16;
    i32, u32;
    i64, u64;
}

/// Every lane by itself.
#[inline]
pub(crate) fn map<T: Lane>(a: u64, f: impl Fn(T) -> T) -> u64 {
    let mut result = 0;
    let mut at = 0;
    while at < 64 {
        result |= f(T::take(a >> at)).put() << at;
        at += T::BITS;
    }
    result
}

/// Every lane of `a` with the one of `b` in the same place.
#[inline]
pub(crate) fn map2<T: Lane>(a: u64, b: u64, f: impl Fn(T, T) -> T) -> u64 {
    let mut result = 0;
    let mut at = 0;
    while at < 64 {
        result |= f(T::take(a >> at), T::take(b >> at)).put() << at;
        at += T::BITS;
    }
    result
}

/// All ones in the lanes where `f` says so.
#[inline]
pub(crate) fn compare<T: Lane>(a: u64, b: u64, f: impl Fn(T, T) -> bool) -> u64 {
    let ones = u64::MAX >> (64 - T::BITS);
    let mut result = 0;
    let mut at = 0;
    while at < 64 {
        if f(T::take(a >> at), T::take(b >> at)) {
            result |= ones << at;
        }
        at += T::BITS;
    }
    result
}

/// The signs of all lanes, lowest lane in bit 0.
#[inline]
pub(crate) fn signs<T: Lane>(a: u64) -> u64 {
    let mut result = 0;
    for lane in 0..64 / T::BITS {
        result |= (a >> (lane * T::BITS + T::BITS - 1) & 1) << lane;
    }
    result
}

/// Lanes of `b` where those of `mask` are negative, else of `a`.
#[inline]
pub(crate) fn blend_by_sign<T: Lane>(a: u64, b: u64, mask: u64) -> u64 {
    let ones = u64::MAX >> (64 - T::BITS);
    let mut chosen = 0;
    let mut at = 0;
    while at < 64 {
        chosen |= ((mask >> (at + T::BITS - 1) & 1) * ones) << at;
        at += T::BITS;
    }
    a & !chosen | b & chosen
}
