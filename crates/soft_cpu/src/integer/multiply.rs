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
