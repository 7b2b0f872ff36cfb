//! Status flags of results (Intel SDM vol. 1, 3.4.3.1).

pub(super) use crate::cpu::flags::*;
use crate::exec::mask;

/// ZF, SF and PF of a result of `S` bytes.
#[inline]
pub(super) fn of_result<const S: usize>(result: u64) -> u64 {
    let result = result & mask(S);
    // PF tells of an even number of bits in the low byte: folded to four bits, looked up in a table of 16 bits.
    let parity = 0x9669 >> ((result ^ result >> 4) & 0xf) & 1;
    let zero = u64::from(result == 0);
    let sign = result >> (S * 8 - 1);
    parity << 2 | zero << 6 | sign << 7
}

/// CF, AF and OF from the carries (or borrows) out of every bit.
#[inline]
fn of_carries<const S: usize>(carries: u64) -> u64 {
    let top = S * 8 - 1;
    let carry = carries >> top & 1;
    let overflow = carry ^ carries >> (top - 1) & 1;
    carry | (carries & 8) << 1 | overflow << 11
}

/// `a` + `b` + `carry`, and its flags.
#[inline]
pub(super) fn add<const S: usize>(a: u64, b: u64, carry: u64) -> (u64, u64) {
    let sum = a.wrapping_add(b).wrapping_add(carry) & mask(S);
    let carries = a & b | (a | b) & !sum;
    (sum, of_result::<S>(sum) | of_carries::<S>(carries))
}

/// `a` - `b` - `borrow`, and its flags.
#[inline]
pub(super) fn subtract<const S: usize>(a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let difference = a.wrapping_sub(b).wrapping_sub(borrow) & mask(S);
    let borrows = !a & b | (!a | b) & difference;
    (difference, of_result::<S>(difference) | of_carries::<S>(borrows))
}

/// `flag` where `condition` holds.
#[inline]
pub(super) fn flag_if(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}
