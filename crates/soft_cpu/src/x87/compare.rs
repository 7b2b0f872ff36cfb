//! Instructions that look at numbers.

use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind};

use super::arithmetic::st;
use super::float::{self, Class, Context, Float, flag};
use super::operand::{Double, DoubleWord, Operand, Single, Word};
use crate::cpu::flags;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Fcom | Mnemonic::Ficom => ordered::<0>(instruction)?,
        Mnemonic::Fcomp | Mnemonic::Ficomp => ordered::<1>(instruction)?,
        Mnemonic::Fcompp => with_register::<true, 2>,
        Mnemonic::Fucom => with_register::<false, 0>,
        Mnemonic::Fucomp => with_register::<false, 1>,
        Mnemonic::Fucompp => with_register::<false, 2>,
        Mnemonic::Fcomi => to_flags::<true, false>,
        Mnemonic::Fcomip => to_flags::<true, true>,
        Mnemonic::Fucomi => to_flags::<false, false>,
        Mnemonic::Fucomip => to_flags::<false, true>,
        Mnemonic::Ftst => test,
        Mnemonic::Fxam => examine,
        _ => return None,
    };
    Some(handler)
}

fn ordered<const POPS: usize>(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match (instruction.op_count(), instruction.memory_size()) {
        (0, _) => return None,
        _ if instruction.op_kind(0) == OpKind::Register => with_register::<true, POPS>,
        (_, MemorySize::Float32) => with_memory::<Single, POPS>,
        (_, MemorySize::Float64) => with_memory::<Double, POPS>,
        (_, MemorySize::Int16) => with_memory::<Word, POPS>,
        (_, MemorySize::Int32) => with_memory::<DoubleWord, POPS>,
        _ => return None,
    };
    Some(handler)
}

const UNORDERED: u16 = flag::C3 | flag::C2 | flag::C0;

/// Compares ST(0) with `other`, pops as often as `pops` says.
fn compare(exec: &mut Exec<'_>, other: Option<Float>, denormal_operand: bool, signals: bool, pops: usize) {
    let x87 = &mut exec.cpu.x87;
    let context = Context {
        denormal_operand,
        ..x87.context()
    };
    let found = match (x87.st(0), other) {
        (Some(first), Some(second)) => float::compare(first, second, signals, &context),
        _ => UNORDERED | flag::INVALID | flag::STACK,
    };
    x87.finish_with_codes(found);
    // The codes are set even where the exception is not masked; only nothing is popped.
    for _ in 0..if context.stops(found) { 0 } else { pops } {
        x87.pop();
    }
}

fn with_memory<M: Operand, const POPS: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    let (other, denormal) = M::load(exec, instruction)?;
    exec.note(instruction);
    compare(exec, Some(other), denormal, true, POPS);
    Ok(())
}

fn with_register<const SIGNALS: bool, const POPS: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    // The forms that pop twice compare with ST(1), and do not say so.
    let index = if POPS == 2 {
        1
    } else {
        st(instruction.op_register(1))
    };
    let other = exec.cpu.x87.st(index);
    compare(exec, other, false, SIGNALS, POPS);
    Ok(())
}

fn test(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    compare(exec, Some(Float::ZERO), false, true, 0);
    Ok(())
}

/// The comparisons that leave their result in ZF, PF and CF.
fn to_flags<const SIGNALS: bool, const POPS: bool>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = x87.context();
    let found = match (x87.st(0), x87.st(st(instruction.op_register(1)))) {
        (Some(first), Some(second)) => float::compare(first, second, SIGNALS, &context),
        _ => UNORDERED | flag::INVALID | flag::STACK,
    };
    let flags = found & (flag::BEFORE | flag::STACK);
    if found & flag::STACK != 0 {
        x87.finish(flags);
    } else {
        x87.finish_keeping_c1(flags);
    }
    if POPS && !context.stops(found) {
        x87.pop();
    }
    let mut status = 0;
    for (code, bit) in [
        (flag::C3, flags::ZF),
        (flag::C2, flags::PF),
        (flag::C0, flags::CF),
    ] {
        if found & code != 0 {
            status |= bit;
        }
    }
    exec.cpu.set_status(status);
    Ok(())
}

/// `FXAM`: what ST(0) is (Intel SDM vol. 2A, table 3-41), even if it is empty.
fn examine(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let value = x87.raw(0);
    let codes = match value.class() {
        _ if x87.is_empty(0) => flag::C3 | flag::C0,
        Class::Unsupported => 0,
        Class::Quiet | Class::Signaling => flag::C0,
        Class::Normal => flag::C2,
        Class::Infinity => flag::C2 | flag::C0,
        Class::Zero => flag::C3,
        Class::Denormal => flag::C3 | flag::C2,
    };
    x87.finish_with_codes(codes | if value.negative { flag::C1 } else { 0 });
    Ok(())
}
