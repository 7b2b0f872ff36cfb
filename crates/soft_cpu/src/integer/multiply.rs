//! Multiplication and division.

use iced_x86::{Instruction, Mnemonic};

use super::flags::{AF, CF, OF};
use super::operands::{by_size, by_wide_size, by_word_size, size_of};
use crate::cpu::Cpu;
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask, sign_extend};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match instruction.mnemonic() {
        Mnemonic::Mul => by_size!(size, multiply, false),
        Mnemonic::Imul if instruction.op_count() == 1 => by_size!(size, multiply, true),
        Mnemonic::Imul if instruction.op_count() == 2 => by_word_size!(size, multiply_register),
        Mnemonic::Imul => by_word_size!(size, multiply_immediate),
        Mnemonic::Mulx => by_wide_size!(size, mulx),
        Mnemonic::Div => by_size!(size, divide),
        Mnemonic::Idiv => by_size!(size, divide_signed),
        _ => None,
    }
}

/// The product of `S` bytes each as (low half, high half).
#[inline]
fn product<const SIGNED: bool, const S: usize>(a: u64, b: u64) -> (u64, u64) {
    let wide = if SIGNED {
        let (a, b) = (sign_extend(a, S) as i64, sign_extend(b, S) as i64);
        (i128::from(a) * i128::from(b)) as u128
    } else {
        u128::from(a) * u128::from(b)
    };
    (wide as u64 & mask(S), (wide >> (S * 8)) as u64 & mask(S))
}

/// CF and OF tell whether the upper half of a product says something; the other flags are undefined and stay.
#[inline]
fn set_overflow(exec: &mut Exec<'_>, overflow: bool) {
    let both = if overflow { CF | OF } else { 0 };
    exec.cpu.rflags = exec.cpu.rflags & !(CF | OF) | both;
}

/// What the upper half is where it says nothing.
#[inline]
fn upper_of<const SIGNED: bool, const S: usize>(low: u64) -> u64 {
    if SIGNED && low >> (S * 8 - 1) != 0 {
        mask(S)
    } else {
        0
    }
}

/// Writes a double-width number: to AX for bytes, to rDX and rAX for the rest.
#[inline]
fn set_double<const S: usize>(exec: &mut Exec<'_>, low: u64, high: u64) {
    if S == 1 {
        exec.set_number::<2>(Cpu::RAX, high << 8 | low);
    } else {
        exec.set_number::<S>(Cpu::RAX, low);
        exec.set_number::<S>(Cpu::RDX, high);
    }
}

/// `MUL` and `IMUL` with one operand.
fn multiply<const SIGNED: bool, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let b = exec.read_sized::<S>(instruction, 0)?;
    let (low, high) = product::<SIGNED, S>(exec.accumulator::<S>(), b);
    set_double::<S>(exec, low, high);
    set_overflow(exec, high != upper_of::<SIGNED, S>(low));
    Ok(())
}

fn multiply_register<const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let b = exec.read_sized::<S>(instruction, 1)?;
    let register = instruction.op0_register();
    let (low, high) = product::<true, S>(exec.register::<S>(register), b);
    exec.set_register::<S>(register, low);
    set_overflow(exec, high != upper_of::<true, S>(low));
    Ok(())
}

fn multiply_immediate<const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let a = exec.read_sized::<S>(instruction, 1)?;
    let b = instruction.immediate(2) & mask(S);
    let (low, high) = product::<true, S>(a, b);
    exec.set_register::<S>(instruction.op0_register(), low);
    set_overflow(exec, high != upper_of::<true, S>(low));
    Ok(())
}

/// High half to operand 0, low half to operand 1; the same register gets the high half.
fn mulx<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let b = exec.read_sized::<S>(instruction, 2)?;
    let (low, high) = product::<false, S>(exec.number::<S>(Cpu::RDX), b);
    exec.set_register::<S>(instruction.op1_register(), low);
    exec.set_register::<S>(instruction.op0_register(), high);
    Ok(())
}

/// The double-width dividend.
#[inline]
fn dividend<const S: usize>(exec: &Exec<'_>) -> u128 {
    if S == 1 {
        exec.accumulator::<2>().into()
    } else {
        u128::from(exec.number::<S>(Cpu::RDX)) << (S * 8) | u128::from(exec.accumulator::<S>())
    }
}

/// All flags are undefined after a division; AMD's processors keep CF and OF, set AF and clear the rest.
fn set_divided(exec: &mut Exec<'_>) {
    exec.cpu.set_status(exec.cpu.rflags & (CF | OF) | AF);
}

fn divide<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let divisor = exec.read_sized::<S>(instruction, 0)?;
    let dividend = dividend::<S>(exec);
    if (dividend >> (S * 8)) as u64 >= divisor {
        // By zero, or a quotient that does not fit.
        return Err(Exception::DIVIDE);
    }
    let (quotient, remainder) = match u64::try_from(dividend) {
        Ok(dividend) => (dividend / divisor, dividend % divisor),
        Err(_) => {
            let divisor = u128::from(divisor);
            ((dividend / divisor) as u64, (dividend % divisor) as u64)
        }
    };
    set_double::<S>(exec, quotient, remainder);
    set_divided(exec);
    Ok(())
}

fn divide_signed<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let divisor = i128::from(sign_extend(exec.read_sized::<S>(instruction, 0)?, S) as i64);
    let unused = 128 - S * 16;
    let dividend = (dividend::<S>(exec) << unused) as i128 >> unused;
    let (Some(quotient), Some(remainder)) = (dividend.checked_div(divisor), dividend.checked_rem(divisor))
    else {
        return Err(Exception::DIVIDE);
    };
    let fits = 1_i128 << (S * 8 - 1);
    if quotient >= fits || quotient < -fits {
        return Err(Exception::DIVIDE);
    }
    set_double::<S>(exec, quotient as u64 & mask(S), remainder as u64 & mask(S));
    set_divided(exec);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::integer::*;

    /// A machine with RAX, RDX and RBX set.
    fn machine(rax: u64, rdx: u64, rbx: u64) -> Machine {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, rax), (Cpu::RDX, rdx), (Cpu::RBX, rbx)]);
        machine
    }

    #[test]
    fn products_fill_both_halves_and_tell_by_carry_and_overflow() {
        for (code, rax, rbx, result, status) in [
            (&[0xf6, 0xe3][..], 0xff, 0xff, (0xfe01, 9), CF | OF),
            (&[0xf6, 0xeb], 0xff, 0xff, (1, 9), 0),
            (&[0xf7, 0xe3], 1 << 31, 2, (0, 1), CF | OF),
            (
                &[0x48, 0xf7, 0xeb],
                u64::MAX,
                7,
                (7_u64.wrapping_neg(), u64::MAX),
                0,
            ),
            (
                &[0x48, 0xf7, 0xe3],
                u64::MAX,
                u64::MAX,
                (1, u64::MAX - 1),
                CF | OF,
            ),
        ] {
            let mut machine = machine(rax, 9, rbx);
            machine.run(code).unwrap();
            assert_eq!(
                (machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RDX]),
                result,
                "{code:02x?}"
            );
            assert_eq!(machine.status(), status, "{code:02x?}");
        }
    }

    #[test]
    fn imul_with_two_and_three_operands_cuts_the_product() {
        let mut machine = machine(1 << 31, 0, 3);
        machine.run(&[0x0f, 0xaf, 0xc3]).unwrap();
        assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.status()), (1 << 31, CF | OF));
        machine.run(&[0x48, 0x6b, 0xc3, 0xfe]).unwrap();
        assert_eq!(
            (machine.cpu.gpr[Cpu::RAX], machine.status()),
            (6_u64.wrapping_neg(), 0)
        );
    }

    #[test]
    fn mulx_gives_both_halves_and_leaves_the_flags() {
        let mut machine = machine(u64::MAX, 2, 0);
        machine.cpu.set_status(CF | OF);
        // mulx rbx, rcx, rax
        machine.run(&[0xc4, 0xe2, 0xf3, 0xf6, 0xd8]).unwrap();
        assert_eq!(
            (machine.cpu.gpr[Cpu::RBX], machine.cpu.gpr[Cpu::RCX]),
            (1, u64::MAX - 1)
        );
        assert_eq!(machine.status(), CF | OF);
    }

    #[test]
    fn divisions_give_quotient_and_remainder() {
        for (code, rax, rdx, rbx, result) in [
            (&[0xf6, 0xf3][..], 0x1234, 0, 0x34, (0x2059, 0)),
            (&[0xf7, 0xf3], 1, 1, 2, (1 << 31, 1)),
            (&[0x48, 0xf7, 0xf3], 5, 1, 2, ((1 << 63) + 2, 1)),
            (
                &[0x48, 0xf7, 0xfb],
                7_u64.wrapping_neg(),
                u64::MAX,
                2,
                (3_u64.wrapping_neg(), u64::MAX),
            ),
            (&[0xf6, 0xfb], 0xff80, 0, 1, (0x0080, 0)),
        ] {
            let mut machine = machine(rax, rdx, rbx);
            machine.run(code).unwrap();
            assert_eq!(
                (machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RDX]),
                result,
                "{code:02x?}"
            );
        }
    }

    #[test]
    fn quotients_that_do_not_exist_or_fit_are_divide_errors() {
        for (code, rax, rdx, rbx) in [
            (&[0xf6, 0xf3][..], 5, 0, 0),
            (&[0xf6, 0xf3], 0x200, 0, 2),
            (&[0xf6, 0xfb], 0x100, 0, 2),
            (&[0xf7, 0xf3], 0, 2, 2),
            (&[0x48, 0xf7, 0xf3], 0, 1, 1),
            (&[0x48, 0xf7, 0xfb], 0, 0, 0),
            (&[0x48, 0xf7, 0xfb], 1 << 63, u64::MAX, u64::MAX),
            (&[0x48, 0xf7, 0xfb], 0, 1 << 63, u64::MAX),
        ] {
            let mut machine = machine(rax, rdx, rbx);
            assert_eq!(machine.run(code), Err(Exception::DIVIDE), "{code:02x?} {rax:#x}");
            assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RDX]), (rax, rdx));
        }
    }
}
