//! Instructions that move numbers: loads, stores, exchanges, constants.

use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind};

use super::arithmetic::st;
use super::float::{self, Context, Float, Outcome, Round, Width, flag};
use super::operand::{Decimal, Double, DoubleWord, Extended, Operand, QuadWord, Single, Word, store_80};
use crate::cpu::flags;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Fld | Mnemonic::Fild | Mnemonic::Fbld => load_handler(instruction)?,
        Mnemonic::Fst => store_handler::<false>(instruction)?,
        Mnemonic::Fstp => store_handler::<true>(instruction)?,
        Mnemonic::Fist => store_handler::<false>(instruction)?,
        Mnemonic::Fistp => store_handler::<true>(instruction)?,
        Mnemonic::Fisttp => match instruction.memory_size() {
            MemorySize::Int16 => store_integer::<16, true, true>,
            MemorySize::Int32 => store_integer::<32, true, true>,
            _ => store_integer::<64, true, true>,
        },
        Mnemonic::Fbstp => store_decimal,
        Mnemonic::Fstpnce => move_unless_empty,
        Mnemonic::Fxch => exchange,
        Mnemonic::Fcmovb => |exec, instruction| conditional(exec, instruction, flags::CF, true),
        Mnemonic::Fcmove => |exec, instruction| conditional(exec, instruction, flags::ZF, true),
        Mnemonic::Fcmovbe => |exec, instruction| conditional(exec, instruction, flags::CF | flags::ZF, true),
        Mnemonic::Fcmovu => |exec, instruction| conditional(exec, instruction, flags::PF, true),
        Mnemonic::Fcmovnb => |exec, instruction| conditional(exec, instruction, flags::CF, false),
        Mnemonic::Fcmovne => |exec, instruction| conditional(exec, instruction, flags::ZF, false),
        Mnemonic::Fcmovnbe => {
            |exec, instruction| conditional(exec, instruction, flags::CF | flags::ZF, false)
        }
        Mnemonic::Fcmovnu => |exec, instruction| conditional(exec, instruction, flags::PF, false),
        Mnemonic::Ffree => free::<false>,
        Mnemonic::Ffreep => free::<true>,
        Mnemonic::Fincstp => turn::<1>,
        Mnemonic::Fdecstp => turn::<7>,
        Mnemonic::Fnop => nothing,
        Mnemonic::Fld1 => |exec, instruction| constant(exec, instruction, &ONE),
        Mnemonic::Fldz => |exec, instruction| constant(exec, instruction, &ZERO),
        Mnemonic::Fldpi => |exec, instruction| constant(exec, instruction, &PI),
        Mnemonic::Fldl2e => |exec, instruction| constant(exec, instruction, &LOG2_E),
        Mnemonic::Fldl2t => |exec, instruction| constant(exec, instruction, &LOG2_10),
        Mnemonic::Fldlg2 => |exec, instruction| constant(exec, instruction, &LOG10_2),
        Mnemonic::Fldln2 => |exec, instruction| constant(exec, instruction, &LN_2),
        _ => return None,
    };
    Some(handler)
}

fn load_handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match (instruction.op_kind(0), instruction.memory_size()) {
        (OpKind::Register, _) => load_register,
        (_, MemorySize::Float32) => load_narrow::<Single>,
        (_, MemorySize::Float64) => load_narrow::<Double>,
        (_, MemorySize::Float80) => load::<Extended>,
        (_, MemorySize::Int16) => load::<Word>,
        (_, MemorySize::Int32) => load::<DoubleWord>,
        (_, MemorySize::Int64) => load::<QuadWord>,
        (_, MemorySize::Bcd) => load::<Decimal>,
        _ => return None,
    };
    Some(handler)
}

fn store_handler<const POPS: bool>(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match (instruction.op_kind(0), instruction.memory_size()) {
        (OpKind::Register, _) => copy::<POPS>,
        (_, MemorySize::Float32) => {
            |exec, instruction| store_narrow::<POPS>(exec, instruction, Width::Single)
        }
        (_, MemorySize::Float64) => {
            |exec, instruction| store_narrow::<POPS>(exec, instruction, Width::Double)
        }
        (_, MemorySize::Float80) => store_extended,
        (_, MemorySize::Int16) => store_integer::<16, POPS, false>,
        (_, MemorySize::Int32) => store_integer::<32, POPS, false>,
        (_, MemorySize::Int64) => store_integer::<64, POPS, false>,
        _ => return None,
    };
    Some(handler)
}

/// A load of what a register holds exactly, and as it is.
fn load<M: Operand>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    let (value, _) = M::load(exec, instruction)?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    x87.push(Outcome::exact(value), &x87.context());
    Ok(())
}

/// A load that converts: denormals and signaling NaNs are exceptions.
fn load_narrow<M: Operand>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    let (value, denormal_operand) = M::load(exec, instruction)?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = Context {
        denormal_operand,
        ..x87.context()
    };
    // A denormal operand is loaded all the same, and reported after that.
    let loads = Context {
        masks: context.masks | flag::DENORMAL,
        ..context
    };
    x87.push(float::widen(value, &loads), &loads);
    Ok(())
}

fn load_register(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = x87.context();
    match x87.st(st(instruction.op_register(0))) {
        Some(value) => x87.push(Outcome::exact(value), &context),
        None => {
            if x87.stack_fault(false) {
                x87.turn(7);
                x87.set_st(0, Float::INDEFINITE);
            }
        }
    }
    Ok(())
}

/// A constant, rounded as the control word wants it (Intel SDM vol. 1, 8.3.4).
struct Constant {
    down: Float,
    /// What it is rounded to nearest, and upwards, may be one unit more.
    nearest: u64,
    up: u64,
}

const fn known(exponent: u16, down: u64, nearest: u64) -> Constant {
    Constant {
        down: Float::positive(exponent, down),
        nearest,
        up: 1,
    }
}

const ONE: Constant = Constant {
    down: Float::ONE,
    nearest: 0,
    up: 0,
};
const ZERO: Constant = Constant {
    down: Float::ZERO,
    nearest: 0,
    up: 0,
};
const PI: Constant = known(0x4000, 0xc90f_daa2_2168_c234, 1);
const LOG2_E: Constant = known(0x3fff, 0xb8aa_3b29_5c17_f0bb, 1);
const LOG2_10: Constant = known(0x4000, 0xd49a_784b_cd1b_8afe, 0);
const LOG10_2: Constant = known(0x3ffd, 0x9a20_9a84_fbcf_f798, 1);
const LN_2: Constant = known(0x3ffe, 0xb172_17f7_d1cf_79ab, 1);

fn constant(exec: &mut Exec<'_>, instruction: &Instruction, constant: &Constant) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = x87.context();
    let more = match context.round {
        Round::Nearest => constant.nearest,
        Round::Up => constant.up,
        Round::Down | Round::Zero => 0,
    };
    let value = Float {
        significand: constant.down.significand + more,
        ..constant.down
    };
    x87.push(Outcome::exact(value), &context);
    Ok(())
}

/// Copies ST(0) to another register.
fn copy<const POPS: bool>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let to = st(instruction.op_register(0));
    let x87 = &mut exec.cpu.x87;
    let stored = match x87.st(0) {
        Some(value) => x87.store(to, Outcome::exact(value), &x87.context()),
        None => x87.underflow(to),
    };
    if POPS && stored {
        x87.pop();
    }
    Ok(())
}

/// Moves ST(0) to another register, unless it is empty, and pops.
fn move_unless_empty(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let to = st(instruction.op_register(0));
    let x87 = &mut exec.cpu.x87;
    if let Some(value) = x87.st(0) {
        x87.set_st(to, value);
    }
    x87.finish(0);
    x87.pop();
    Ok(())
}

/// Finishes a store to memory: `write` is called unless an exception in `flags` that is among `stopping` is
/// unmasked.
fn store(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    flags: u16,
    stopping: u16,
    pops: bool,
    write: impl FnOnce(&mut Exec<'_>) -> Result<(), Exception>,
) -> Result<(), Exception> {
    let stops = flags & stopping & !exec.cpu.x87.control;
    if stops == 0 {
        write(exec)?;
    }
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    // What is not stored is not inexact.
    x87.finish(if stops == 0 {
        flags
    } else {
        flags & !(flag::PRECISION | flag::C1)
    });
    if stops == 0 && pops {
        x87.pop();
    }
    Ok(())
}

const UNDERFLOW: u16 = flag::INVALID | flag::STACK;

fn store_narrow<const POPS: bool>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    width: Width,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    let x87 = &exec.cpu.x87;
    let context = x87.context();
    let (bits, flags) = match x87.st(0) {
        Some(value) => float::to_memory(value, width, &context),
        None => (float::to_memory(Float::INDEFINITE, width, &context).0, UNDERFLOW),
    };
    let stopping = flag::INVALID | flag::OVERFLOW | flag::UNDERFLOW;
    store(exec, instruction, flags, stopping, POPS, |exec| {
        exec.write(instruction, 0, bits)
    })
}

fn store_extended(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    let (value, flags) = match exec.cpu.x87.st(0) {
        Some(value) => (value, 0),
        None => (Float::INDEFINITE, UNDERFLOW),
    };
    store(exec, instruction, flags, flag::INVALID, true, |exec| {
        store_80(exec, instruction, value.to_bits())
    })
}

fn store_integer<const BITS: u32, const POPS: bool, const TRUNCATES: bool>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    let x87 = &exec.cpu.x87;
    let round = if TRUNCATES {
        Round::Zero
    } else {
        x87.context().round
    };
    let (value, flags) = match x87.st(0) {
        Some(value) => float::to_integer(value, BITS, round),
        None => (i64::MIN >> (64 - BITS), UNDERFLOW),
    };
    store(exec, instruction, flags, flag::INVALID, POPS, |exec| {
        exec.write(instruction, 0, value as u64)
    })
}

fn store_decimal(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    let x87 = &exec.cpu.x87;
    let context = x87.context();
    let (value, flags) = match x87.st(0) {
        Some(value) => float::to_decimal(value, &context),
        None => (float::to_decimal(Float::INDEFINITE, &context).0, UNDERFLOW),
    };
    store(exec, instruction, flags, flag::INVALID, true, |exec| {
        store_80(exec, instruction, value)
    })
}

fn exchange(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let other = st(instruction.op_register(1));
    let x87 = &mut exec.cpu.x87;
    let (first, second) = (x87.st(0), x87.st(other));
    if first.is_none() || second.is_none() {
        if !x87.stack_fault(false) {
            return Ok(());
        }
    } else {
        x87.finish(0);
    }
    x87.set_st(0, second.unwrap_or(Float::INDEFINITE));
    x87.set_st(other, first.unwrap_or(Float::INDEFINITE));
    Ok(())
}

/// `FCMOVcc`: moves if any of `which` is set, or none.
fn conditional(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    which: u64,
    set: bool,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let moves = (exec.cpu.rflags & which != 0) == set;
    let x87 = &mut exec.cpu.x87;
    match (x87.st(0), x87.st(st(instruction.op_register(1)))) {
        (Some(first), Some(other)) => x87.set_st(0, if moves { other } else { first }),
        _ => {
            x87.underflow(0);
        }
    }
    Ok(())
}

fn free<const POPS: bool>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    x87.free(st(instruction.op_register(0)));
    x87.finish(0);
    if POPS {
        x87.pop();
    }
    Ok(())
}

fn turn<const BY: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    exec.cpu.x87.turn(BY);
    Ok(())
}

fn nothing(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    Ok(())
}
