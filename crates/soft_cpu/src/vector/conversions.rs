//! Conversions between numbers of different kinds.

use iced_x86::{Instruction, Mnemonic as M, OpKind};

use super::drivers::handler;
use super::float::{self, Double, Environment, Format, Half, Rounding, Single};
use super::operands::{Shape, Vector};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    packed(instruction.mnemonic()).or_else(|| scalar(instruction.mnemonic()))
}

fn packed(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Cvtdq2ps | M::Vcvtdq2ps => handler!(convert_packed::<32, 32>, from_signed::<Single>),
        M::Cvtdq2pd | M::Vcvtdq2pd => handler!(convert_packed::<32, 64>, from_signed::<Double>),
        M::Cvtps2dq | M::Vcvtps2dq => handler!(convert_packed::<32, 32>, to_signed::<Single, 32>),
        M::Cvttps2dq | M::Vcvttps2dq => handler!(convert_packed::<32, 32>, truncate::<Single, 32>),
        M::Cvtpd2dq | M::Vcvtpd2dq => handler!(convert_packed::<64, 32>, to_signed::<Double, 32>),
        M::Cvttpd2dq | M::Vcvttpd2dq => handler!(convert_packed::<64, 32>, truncate::<Double, 32>),
        M::Cvtps2pd | M::Vcvtps2pd => handler!(convert_packed::<32, 64>, float::convert::<Single, Double>),
        M::Cvtpd2ps | M::Vcvtpd2ps => handler!(convert_packed::<64, 32>, float::convert::<Double, Single>),
        M::Vcvtph2ps => handler!(convert_packed::<16, 32>, from_half),
        M::Vcvtps2ph => handler!(to_halves),
        _ => return None,
    })
}

fn scalar(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Cvtss2sd | M::Vcvtss2sd => handler!(convert_scalar::<32, 64>, float::convert::<Single, Double>),
        M::Cvtsd2ss | M::Vcvtsd2ss => handler!(convert_scalar::<64, 32>, float::convert::<Double, Single>),
        M::Cvtsi2ss | M::Vcvtsi2ss => handler!(from_general::<Single>),
        M::Cvtsi2sd | M::Vcvtsi2sd => handler!(from_general::<Double>),
        M::Cvtss2si | M::Vcvtss2si => handler!(to_general::<Single>, false),
        M::Cvtsd2si | M::Vcvtsd2si => handler!(to_general::<Double>, false),
        M::Cvttss2si | M::Vcvttss2si => handler!(to_general::<Single>, true),
        M::Cvttsd2si | M::Vcvttsd2si => handler!(to_general::<Double>, true),
        _ => return None,
    })
}

fn from_signed<F: Format>(environment: &mut Environment, a: u64) -> u64 {
    float::from_integer::<F>(environment, (a as i32).into())
}

fn to_signed<F: Format, const BITS: u32>(environment: &mut Environment, a: u64) -> u64 {
    let rounding = environment.rounding;
    float::to_integer::<F>(environment, a, BITS, rounding)
}

fn truncate<F: Format, const BITS: u32>(environment: &mut Environment, a: u64) -> u64 {
    float::to_integer::<F>(environment, a, BITS, Rounding::TowardsZero)
}

/// Denormal halves are numbers like any other (Intel SDM vol. 1, 14.4.1).
fn from_half(environment: &mut Environment, a: u64) -> u64 {
    let mut own = *environment;
    own.denormals_are_zeros = false;
    let result = float::convert::<Half, Single>(&mut own, a);
    environment.raise(own.outcome().0 & float::flag::INVALID);
    result
}

/// Every element of `S` bits to one of `D`, as many as the wider ones fill the vector.
fn convert_packed<const S: usize, const D: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    mut f: impl FnMut(&mut Environment, u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let widest = S.max(D);
    let count = shape.size() * 8 / widest;
    let from = if S == widest {
        exec.vector_operand(instruction, 1, shape)?
    } else {
        exec.narrow_operand(instruction, 1, count * S / 8)?
    };
    let mut environment = exec.float_environment();
    let mut result = [0; 4];
    for index in 0..count {
        let (at, to) = (index * S, index * D);
        let element = from[at / 64] >> (at % 64) & u64::MAX >> (64 - S);
        result[to / 64] |= f(&mut environment, element) << (to % 64);
    }
    exec.commit_float(&environment)?;
    let narrow = Shape {
        wide: shape.wide && D == widest,
        ..shape
    };
    exec.set_vector(instruction.op0_register(), result, narrow);
    Ok(())
}

/// The low element of the second source; the rest comes from the first.
fn convert_scalar<const S: usize, const D: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    f: impl Fn(&mut Environment, u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let from = exec.narrow_operand(instruction, shape.second(), S / 8)?[0] & u64::MAX >> (64 - S);
    let mut environment = exec.float_environment();
    let made = f(&mut environment, from);
    exec.commit_float(&environment)?;
    exec.set_low::<D>(instruction, made, shape);
    Ok(())
}

/// `CVTSI2Sx`.
fn from_general<F: Format>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let index = shape.second();
    let value = exec.read(instruction, index)?;
    let value = crate::exec::sign_extend(value, exec.operand_size(instruction, index)) as i64;
    let mut environment = exec.float_environment();
    let made = float::from_integer::<F>(&mut environment, value);
    exec.commit_float(&environment)?;
    match F::BITS {
        32 => exec.set_low::<32>(instruction, made, shape),
        _ => exec.set_low::<64>(instruction, made, shape),
    }
    Ok(())
}

/// `CVTSx2SI`, `CVTTSx2SI`.
fn to_general<F: Format>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    truncates: bool,
) -> Result<(), Exception> {
    exec.shape(instruction)?;
    let from = exec.narrow_operand(instruction, 1, F::BITS as usize / 8)?[0] & F::ALL;
    let mut environment = exec.float_environment();
    let rounding = if truncates {
        Rounding::TowardsZero
    } else {
        environment.rounding
    };
    let bits = exec.operand_size(instruction, 0) as u32 * 8;
    let made = float::to_integer::<F>(&mut environment, from, bits, rounding);
    exec.commit_float(&environment)?;
    exec.set_gpr(instruction.op0_register(), made);
    Ok(())
}

/// `VCVTPS2PH`: rounds as its immediate says; results are never flushed to zero.
fn to_halves(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let from = exec.vector(instruction.op1_register());
    let control = instruction.immediate8();
    let mut environment = exec.float_environment();
    environment.flush_to_zero = false;
    if control & 4 == 0 {
        environment.rounding = Rounding::of(control.into());
    }
    let mut result: Vector = [0; 4];
    for index in 0..shape.chunks() * 2 {
        let (at, to) = (index * 32, index * 16);
        let element = from[at / 64] >> (at % 64) & 0xffff_ffff;
        let made = float::convert::<Single, Half>(&mut environment, element);
        result[to / 64] |= made << (to % 64);
    }
    if instruction.op0_kind() == OpKind::Memory {
        // The exception comes before the store, but a store that fails leaves no flags.
        exec.end_float_step(&mut environment)?;
        exec.vector_store(instruction, &result, shape.size() / 2, false)?;
        return exec.commit_float(&environment);
    }
    exec.commit_float(&environment)?;
    let narrow = Shape { wide: false, ..shape };
    exec.set_vector(instruction.op0_register(), result, narrow);
    Ok(())
}

impl Exec<'_> {
    /// Writes the low `BITS` bits of the destination; the rest of 128 comes from the first source.
    fn set_low<const BITS: usize>(&mut self, instruction: &Instruction, value: u64, shape: Shape) {
        let mut result = self.vector(instruction.op_register(shape.first()));
        let mask = u64::MAX >> (64 - BITS);
        result[0] = result[0] & !mask | value & mask;
        self.set_vector(instruction.op0_register(), result, shape);
    }
}
