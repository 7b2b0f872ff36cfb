//! Numbers of 64 bits as several smaller ones.

use std::array::from_fn;

/// The eight bytes of a number, lowest first.
pub(super) fn bytes(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}

/// The four words of a number, lowest first.
pub(super) fn words(value: u64) -> [u16; 4] {
    from_fn(|lane| (value >> (16 * lane)) as u16)
}

/// The two double words of a number, lowest first.
pub(super) fn double_words(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

pub(super) fn from_bytes(lanes: [u8; 8]) -> u64 {
    u64::from_le_bytes(lanes)
}

pub(super) fn from_words(lanes: [u16; 4]) -> u64 {
    (0..4).fold(0, |value, lane| value | u64::from(lanes[lane]) << (16 * lane))
}

pub(super) fn from_double_words(lanes: [u32; 2]) -> u64 {
    u64::from(lanes[0]) | u64::from(lanes[1]) << 32
}

/// Computes byte by byte.
pub(super) fn by_bytes(a: u64, b: u64, compute: impl Fn(u8, u8) -> u8) -> u64 {
    let (a, b) = (bytes(a), bytes(b));
    from_bytes(from_fn(|lane| compute(a[lane], b[lane])))
}

/// Computes word by word.
pub(super) fn by_words(a: u64, b: u64, compute: impl Fn(u16, u16) -> u16) -> u64 {
    let (a, b) = (words(a), words(b));
    from_words(from_fn(|lane| compute(a[lane], b[lane])))
}

/// Computes double word by double word.
pub(super) fn by_double_words(a: u64, b: u64, compute: impl Fn(u32, u32) -> u32) -> u64 {
    let (a, b) = (double_words(a), double_words(b));
    from_double_words(from_fn(|lane| compute(a[lane], b[lane])))
}

/// Computes neighbours: the low half of the result from `a`, the high half from `b`.
pub(super) fn neighbouring_words(a: u64, b: u64, compute: impl Fn(i16, i16) -> i16) -> u64 {
    let (a, b) = (words(a), words(b));
    let all = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
    from_words(from_fn(|lane| {
        compute(all[2 * lane] as i16, all[2 * lane + 1] as i16) as u16
    }))
}

/// The same for double words.
pub(super) fn neighbouring_double_words(a: u64, b: u64, compute: impl Fn(u32, u32) -> u32) -> u64 {
    let (a, b) = (double_words(a), double_words(b));
    from_double_words([compute(a[0], a[1]), compute(b[0], b[1])])
}
