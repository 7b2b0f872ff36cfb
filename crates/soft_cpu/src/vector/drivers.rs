//! The ways in which instructions apply a function of lanes to their operands. Legacy and VEX encodings, 128 and
//! 256 bits share one function.

use iced_x86::Instruction;

use super::operands::{Vector, lane, set_lane};
use crate::exception::Exception;
use crate::exec::Exec;

/// A [`Handler`](crate::exec::Handler) that calls a driver with what it drives.
macro_rules! handler {
    ($driver:path $(, $argument:expr)* $(,)?) => {{
        fn handler(
            exec: &mut $crate::exec::Exec<'_>,
            instruction: &iced_x86::Instruction,
        ) -> Result<(), $crate::exception::Exception> {
            $driver(exec, instruction $(, $argument)*)
        }
        handler as $crate::exec::Handler
    }};
}
pub(super) use handler;

/// Two sources, 64 bits by 64 bits.
#[inline]
pub(super) fn chunks2(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    f: impl Fn(u64, u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (a, b) = exec.sources(instruction, shape)?;
    let mut result = [0; 4];
    for index in 0..shape.chunks() {
        result[index] = f(a[index], b[index]);
    }
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// One source, 64 bits by 64 bits.
#[inline]
pub(super) fn chunks1(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    f: impl Fn(u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let a = exec.vector_operand(instruction, 1, shape)?;
    exec.set_vector(instruction.op0_register(), a.map(f), shape);
    Ok(())
}

/// Two sources, 128 bits by 128 bits; `f` is told the immediate.
#[inline]
pub(super) fn lanes2(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    f: impl Fn(u128, u128, u8) -> u128,
) -> Result<(), Exception> {
    indexed_lanes2(exec, instruction, |a, b, immediate, _| f(a, b, immediate))
}

/// Two sources, 128 bits by 128 bits; `f` is told the immediate and which half it is.
#[inline]
pub(super) fn indexed_lanes2(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    f: impl Fn(u128, u128, u8, usize) -> u128,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (a, b) = exec.sources(instruction, shape)?;
    let immediate = instruction.immediate8();
    let mut result = [0; 4];
    for index in 0..shape.chunks() / 2 {
        let made = f(lane(&a, index), lane(&b, index), immediate, index);
        set_lane(&mut result, index, made);
    }
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// One source, 128 bits by 128 bits; `f` is told the immediate and which half it is.
#[inline]
pub(super) fn lanes1(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    f: impl Fn(u128, u8, usize) -> u128,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let a = exec.vector_operand(instruction, 1, shape)?;
    let immediate = instruction.immediate8();
    let mut result = [0; 4];
    for index in 0..shape.chunks() / 2 {
        set_lane(&mut result, index, f(lane(&a, index), immediate, index));
    }
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// Every chunk of the first source, changed by a count: an immediate, or the low 64 bits of the second source,
/// which has 128 bits whatever the width.
#[inline]
pub(super) fn shifts(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    f: impl Fn(u64, u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let count = if instruction.op_kind(shape.second()) == iced_x86::OpKind::Immediate8 {
        instruction.immediate8().into()
    } else {
        let narrow = super::operands::Shape { wide: false, ..shape };
        exec.vector_operand(instruction, shape.second(), narrow)?[0]
    };
    let a: Vector = exec.vector(instruction.op_register(shape.first()));
    exec.set_vector(instruction.op0_register(), a.map(|chunk| f(chunk, count)), shape);
    Ok(())
}

/// Both halves of the first source, changed by an immediate.
#[inline]
pub(super) fn byte_shifts(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    f: impl Fn(u128, u8) -> u128,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let a = exec.vector(instruction.op_register(shape.first()));
    let mut result = [0; 4];
    for index in 0..2 {
        set_lane(&mut result, index, f(lane(&a, index), instruction.immediate8()));
    }
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}
