//! Shifts and rotations.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::flags::{self, AF, CF, OF, STATUS};
use super::operands::{by_size, by_wide_size, by_word_size, size_of};
use crate::cpu::Cpu;
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask, sign_extend};

/// A shift or rotation of one operand.
trait Shift {
    /// The result and all status flags; `count` is masked and not 0, `status` has the present flags.
    fn apply<const S: usize>(value: u64, count: u32, status: u64) -> (u64, u64);
}

struct Shl;
struct Shr;
struct Sar;
struct Rol;
struct Ror;
struct Rcl;
struct Rcr;

/// The highest bit of `S` bytes.
const fn top<const S: usize>(value: u64) -> u64 {
    value >> (S * 8 - 1) & 1
}

impl Shift for Shl {
    fn apply<const S: usize>(value: u64, count: u32, _: u64) -> (u64, u64) {
        // AF is undefined after all shifts; AMD's processors set it.
        let wide = u128::from(value) << count;
        let result = wide as u64 & mask(S);
        let carry = (wide >> (S * 8)) as u64 & 1;
        let overflow = top::<S>(result) ^ carry;
        (
            result,
            flags::of_result::<S>(result) | AF | carry | overflow << 11,
        )
    }
}

impl Shift for Shr {
    fn apply<const S: usize>(value: u64, count: u32, _: u64) -> (u64, u64) {
        let carry = value >> (count - 1) & 1;
        let result = value >> (count - 1) >> 1;
        // Defined for one step, as the highest bit of what was there.
        let overflow = result >> (S * 8 - 2) & 1;
        (
            result,
            flags::of_result::<S>(result) | AF | carry | overflow << 11,
        )
    }
}

impl Shift for Sar {
    fn apply<const S: usize>(value: u64, count: u32, _: u64) -> (u64, u64) {
        let signed = sign_extend(value, S) as i64 >> (count - 1);
        let result = (signed >> 1) as u64 & mask(S);
        (result, flags::of_result::<S>(result) | AF | signed as u64 & 1)
    }
}

impl Shift for Rol {
    fn apply<const S: usize>(value: u64, count: u32, status: u64) -> (u64, u64) {
        let count = count as usize % (S * 8);
        let result = if count == 0 {
            value
        } else {
            (value << count | value >> (S * 8 - count)) & mask(S)
        };
        let carry = result & 1;
        let overflow = top::<S>(result) ^ carry;
        (result, status & !(CF | OF) | carry | overflow << 11)
    }
}

impl Shift for Ror {
    fn apply<const S: usize>(value: u64, count: u32, status: u64) -> (u64, u64) {
        let count = count as usize % (S * 8);
        let result = if count == 0 {
            value
        } else {
            (value >> count | value << (S * 8 - count)) & mask(S)
        };
        let carry = top::<S>(result);
        let overflow = carry ^ result >> (S * 8 - 2) & 1;
        (result, status & !(CF | OF) | carry | overflow << 11)
    }
}

/// Rotates the `S` bytes of `value` with `carry` above them to the left.
fn rotate_with_carry<const S: usize>(value: u64, carry: u64, count: usize) -> (u64, u64) {
    let bits = S * 8 + 1;
    let wide = u128::from(carry) << (bits - 1) | u128::from(value);
    let turned = if count == 0 {
        wide
    } else {
        wide << count | wide >> (bits - count)
    };
    (turned as u64 & mask(S), (turned >> (bits - 1)) as u64 & 1)
}

impl Shift for Rcl {
    fn apply<const S: usize>(value: u64, count: u32, status: u64) -> (u64, u64) {
        let bits = S * 8 + 1;
        let (result, carry) = rotate_with_carry::<S>(value, status & CF, count as usize % bits);
        let overflow = top::<S>(result) ^ carry;
        (result, status & !(CF | OF) | carry | overflow << 11)
    }
}

impl Shift for Rcr {
    fn apply<const S: usize>(value: u64, count: u32, status: u64) -> (u64, u64) {
        let bits = S * 8 + 1;
        let left = (bits - count as usize % bits) % bits;
        let (result, carry) = rotate_with_carry::<S>(value, status & CF, left);
        let overflow = top::<S>(result) ^ result >> (S * 8 - 2) & 1;
        (result, status & !(CF | OF) | carry | overflow << 11)
    }
}

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match instruction.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => by_size!(size, shift, Shl),
        Mnemonic::Shr => by_size!(size, shift, Shr),
        Mnemonic::Sar => by_size!(size, shift, Sar),
        Mnemonic::Rol => by_size!(size, shift, Rol),
        Mnemonic::Ror => by_size!(size, shift, Ror),
        Mnemonic::Rcl => by_size!(size, shift, Rcl),
        Mnemonic::Rcr => by_size!(size, shift, Rcr),
        Mnemonic::Shld => by_word_size!(size, shift_double, true),
        Mnemonic::Shrd => by_word_size!(size, shift_double, false),
        Mnemonic::Shlx => by_wide_size!(size, shift_without_flags, Shl),
        Mnemonic::Shrx => by_wide_size!(size, shift_without_flags, Shr),
        Mnemonic::Sarx => by_wide_size!(size, shift_without_flags, Sar),
        Mnemonic::Rorx => by_wide_size!(size, rorx),
        _ => None,
    }
}

/// The count that operand `index` (an immediate or CL) asks for, as wide operands of `S` bytes let it be.
#[inline]
fn count<const S: usize>(exec: &Exec<'_>, instruction: &Instruction, index: u32) -> u32 {
    let count = if instruction.op_kind(index) == OpKind::Register {
        exec.cpu.gpr[Cpu::RCX] as u32
    } else {
        instruction.immediate8().into()
    };
    count & if S == 8 { 63 } else { 31 }
}

fn shift<O: Shift, const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let count = count::<S>(exec, instruction, 1);
    let present = exec.cpu.rflags & STATUS;
    let apply = |value| {
        if count == 0 {
            (value, present)
        } else {
            O::apply::<S>(value, count, present)
        }
    };
    let old = exec.update_sized::<S>(instruction, |value| apply(value).0)?;
    exec.cpu.set_status(apply(old).1);
    Ok(())
}

/// `SHLX`, `SHRX`, `SARX`: the count is operand 2.
fn shift_without_flags<O: Shift, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let value = exec.read_sized::<S>(instruction, 1)?;
    let count = exec.register::<S>(instruction.op2_register()) as u32 & (S as u32 * 8 - 1);
    let result = if count == 0 {
        value
    } else {
        O::apply::<S>(value, count, 0).0
    };
    exec.set_register::<S>(instruction.op0_register(), result);
    Ok(())
}

fn rorx<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.read_sized::<S>(instruction, 1)?;
    let (result, _) = Ror::apply::<S>(value, instruction.immediate8().into(), 0);
    exec.set_register::<S>(instruction.op0_register(), result);
    Ok(())
}

/// `SHLD` (`LEFT`) and `SHRD`: bits of operand 1 move into operand 0.
fn shift_double<const LEFT: bool, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let count = count::<S>(exec, instruction, 2);
    let filler = exec.register::<S>(instruction.op1_register());
    let present = exec.cpu.rflags & STATUS;
    let apply = |value| match (count, LEFT) {
        (0, _) => (value, present),
        (_, true) => shift_left_double::<S>(value, filler, count),
        (_, false) => shift_right_double::<S>(value, filler, count),
    };
    let old = exec.update_sized::<S>(instruction, |value| apply(value).0)?;
    exec.cpu.set_status(apply(old).1);
    Ok(())
}

/// Counts above 16 with 16-bit operands are undefined; AMD's processors go on with `filler` once more, and know no
/// carry. OF is defined for one step.
fn shift_left_double<const S: usize>(value: u64, filler: u64, count: u32) -> (u64, u64) {
    let bits = S as u32 * 8;
    let (fillers, width) = if S == 2 {
        (filler << 16 | filler, 32)
    } else {
        (filler, bits)
    };
    let filled = (u128::from(fillers) << count >> width) as u64;
    let shifted = u128::from(value) << count;
    let result = (shifted as u64 | filled) & mask(S);
    let carry = (shifted >> bits) as u64 & 1;
    let overflow = carry ^ top::<S>(shifted as u64);
    (
        result,
        flags::of_result::<S>(result) | AF | carry | overflow << 11,
    )
}

fn shift_right_double<const S: usize>(value: u64, filler: u64, count: u32) -> (u64, u64) {
    let bits = S as u32 * 8;
    let mut row = u128::from(filler) << bits | u128::from(value);
    if S == 2 {
        row |= u128::from(filler) << 32;
    }
    let result = (row >> count) as u64 & mask(S);
    // Above 16 there is none here either.
    let carry = value >> (count - 1) & 1;
    let overflow = top::<S>(result) ^ result >> (bits - 2) & 1;
    (
        result,
        flags::of_result::<S>(result) | AF | carry | overflow << 11,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::flags::{PF, SF, ZF};
    use crate::testing::integer::*;

    /// RAX after an instruction on RAX, RBX and RCX, and the status flags.
    fn computed(code: &[u8], rax: u64, rbx: u64, rcx: u64, status: u64) -> (u64, u64) {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, rax), (Cpu::RBX, rbx), (Cpu::RCX, rcx)]);
        machine.cpu.set_status(status);
        machine.run(code).unwrap();
        (machine.cpu.gpr[Cpu::RAX], machine.status())
    }

    #[test]
    fn shifts_put_the_last_bit_into_the_carry() {
        for (code, rax, result) in [
            (&[0xc0, 0xe0, 4][..], 0x1f, (0xf0, CF | AF | SF | PF)),
            (&[0xd1, 0xe0], 0x4000_0000, (0x8000_0000, SF | OF | AF | PF)),
            (&[0x48, 0xd1, 0xe8], 1 << 63 | 1, (1 << 62, CF | OF | AF | PF)),
            (&[0x48, 0xc1, 0xf8, 63], 1 << 63, (u64::MAX, SF | AF | PF)),
            (&[0xc0, 0xe8, 9], 0xff, (0, ZF | AF | PF)),
        ] {
            assert_eq!(computed(code, rax, 0, 0, 0), result, "{code:02x?}");
        }
    }

    #[test]
    fn counts_are_masked_and_zero_changes_no_flag() {
        let all = STATUS;
        assert_eq!(computed(&[0xd3, 0xe0], 0xff_0000_0001, 0, 32, all), (1, all));
        assert_eq!(computed(&[0x48, 0xd3, 0xe8], 8, 0, 64, all), (8, all));
        assert_eq!(computed(&[0x48, 0xd3, 0xe0], 1, 0, 32, 0).0, 1 << 32);
        assert_eq!(computed(&[0x0f, 0xa5, 0xd8], 1, u64::MAX, 32, all), (1, all));
        assert_eq!(computed(&[0x48, 0xd3, 0xd0], 1, 0, 64, CF), (1, CF));
    }

    #[test]
    fn rotations_turn_bits_round_and_keep_other_flags() {
        let kept = SF | ZF | AF | PF;
        for (code, rax, status, result) in [
            (&[0xc0, 0xc0, 4][..], 0x12, 0, (0x21, CF | OF)),
            (&[0x66, 0xc1, 0xc8, 4], 0x1238, 0, (0x8123, CF | OF)),
            (&[0xc0, 0xc0, 8], 0x81, kept, (0x81, kept | CF)),
            (&[0xd0, 0xd0], 0x80, CF, (0x01, CF | OF)),
            (&[0xc0, 0xd0, 9], 0x55, CF, (0x55, CF | OF)),
            (&[0x48, 0xd1, 0xd8], 2, CF, (1 << 63 | 1, OF)),
        ] {
            assert_eq!(computed(code, rax, 0, 0, status), result, "{code:02x?}");
        }
    }

    #[test]
    fn double_shifts_fill_from_the_other_register() {
        let (left, _) = computed(&[0x48, 0x0f, 0xa4, 0xd8, 8], 0x11 << 56 | 5, 0xab << 56, 0, 0);
        let (right, _) = computed(&[0x0f, 0xac, 0xd8, 8], 0x1234_5678, 0xcd, 0, 0);
        // Beyond its width a word shift is undefined: as AMD's processors do it.
        let beyond = computed(&[0x66, 0x0f, 0xa4, 0xd8, 26], 0x80, 0x79c6, 0, 0);
        assert_eq!((left, right), (0x5ab, 0xcd12_3456));
        assert_eq!(beyond, (0x19e7, AF | PF));
    }

    #[test]
    fn shifts_without_flags_take_their_count_from_a_register() {
        // shlx, sarx, shrx rax, rbx, rcx; rorx rax, rbx, 8
        let all = STATUS;
        let value = 1 << 63 | 1;
        assert_eq!(
            computed(&[0xc4, 0xe2, 0xf1, 0xf7, 0xc3], 0, value, 65, all),
            (2, all)
        );
        assert_eq!(
            computed(&[0xc4, 0xe2, 0xf2, 0xf7, 0xc3], 0, value, 1, all),
            (3 << 62, all)
        );
        assert_eq!(
            computed(&[0xc4, 0xe2, 0xf3, 0xf7, 0xc3], 0, value, 64, all),
            (value, all)
        );
        assert_eq!(
            computed(&[0xc4, 0xe3, 0xfb, 0xf0, 0xc3, 8], 0, value, 0, all),
            (0x180 << 48, all)
        );
    }

    #[test]
    fn shift_of_memory_by_nothing_is_a_store_all_the_same() {
        let mut machine = Machine::new(32);
        machine.page_without(DATA);
        machine.cpu.gpr[Cpu::RSI] = DATA;
        assert_eq!(machine.run(&[0xd3, 0x26]), Err(Exception::page_fault(DATA, 2)));
    }
}
