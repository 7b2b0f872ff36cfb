//! Instructions that compute one number from one or two.

use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind, Register};

use super::float::{self, Context, Float, Outcome, Remainder, flag};
use super::operand::{Double, DoubleWord, Operand, Single, Word};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Fadd | Mnemonic::Fiadd => binary::<Add, false>(instruction)?,
        Mnemonic::Fsub | Mnemonic::Fisub => binary::<Subtract, false>(instruction)?,
        Mnemonic::Fsubr | Mnemonic::Fisubr => binary::<SubtractReversed, false>(instruction)?,
        Mnemonic::Fmul | Mnemonic::Fimul => binary::<Multiply, false>(instruction)?,
        Mnemonic::Fdiv | Mnemonic::Fidiv => binary::<Divide, false>(instruction)?,
        Mnemonic::Fdivr | Mnemonic::Fidivr => binary::<DivideReversed, false>(instruction)?,
        Mnemonic::Faddp => binary::<Add, true>(instruction)?,
        Mnemonic::Fsubp => binary::<Subtract, true>(instruction)?,
        Mnemonic::Fsubrp => binary::<SubtractReversed, true>(instruction)?,
        Mnemonic::Fmulp => binary::<Multiply, true>(instruction)?,
        Mnemonic::Fdivp => binary::<Divide, true>(instruction)?,
        Mnemonic::Fdivrp => binary::<DivideReversed, true>(instruction)?,
        Mnemonic::Fsqrt => |exec, instruction| unary(exec, instruction, float::square_root),
        Mnemonic::Frndint => |exec, instruction| unary(exec, instruction, float::round_to_integral),
        Mnemonic::F2xm1 => |exec, instruction| {
            unary(exec, instruction, |a, context| {
                float::exponential(a, &context.extended())
            })
        },
        Mnemonic::Fchs => |exec, instruction| sign(exec, instruction, |negative| !negative),
        Mnemonic::Fabs => |exec, instruction| sign(exec, instruction, |_| false),
        Mnemonic::Fscale => |exec, instruction| with_second(exec, instruction, float::scale),
        Mnemonic::Fprem => |exec, instruction| remainder(exec, instruction, Remainder::Truncated),
        Mnemonic::Fprem1 => |exec, instruction| remainder(exec, instruction, Remainder::Nearest),
        Mnemonic::Fpatan => |exec, instruction| {
            into_second(exec, instruction, |x, y, context| {
                float::arctangent(y, x, context)
            })
        },
        Mnemonic::Fyl2x => |exec, instruction| into_second(exec, instruction, float::logarithm),
        Mnemonic::Fyl2xp1 => |exec, instruction| into_second(exec, instruction, float::logarithm_plus_one),
        _ => return None,
    };
    Some(handler)
}

/// What is done with a destination and a source.
trait Operation {
    fn compute(destination: Float, source: Float, context: &Context) -> Outcome;
}

struct Add;
struct Subtract;
struct SubtractReversed;
struct Multiply;
struct Divide;
struct DivideReversed;

impl Operation for Add {
    fn compute(destination: Float, source: Float, context: &Context) -> Outcome {
        float::add(destination, source, context)
    }
}

impl Operation for Subtract {
    fn compute(destination: Float, source: Float, context: &Context) -> Outcome {
        float::subtract(destination, source, context)
    }
}

impl Operation for SubtractReversed {
    fn compute(destination: Float, source: Float, context: &Context) -> Outcome {
        float::subtract(source, destination, context)
    }
}

impl Operation for Multiply {
    fn compute(destination: Float, source: Float, context: &Context) -> Outcome {
        float::multiply(destination, source, context)
    }
}

impl Operation for Divide {
    fn compute(destination: Float, source: Float, context: &Context) -> Outcome {
        float::divide(destination, source, context)
    }
}

impl Operation for DivideReversed {
    fn compute(destination: Float, source: Float, context: &Context) -> Outcome {
        float::divide(source, destination, context)
    }
}

/// The handler for the operands of `instruction`.
fn binary<O: Operation, const POPS: bool>(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match (instruction.op_kind(0), instruction.memory_size()) {
        (OpKind::Register, _) => with_register::<O, POPS>,
        (_, MemorySize::Float32) => with_memory::<O, Single>,
        (_, MemorySize::Float64) => with_memory::<O, Double>,
        (_, MemorySize::Int16) => with_memory::<O, Word>,
        (_, MemorySize::Int32) => with_memory::<O, DoubleWord>,
        _ => return None,
    };
    Some(handler)
}

fn with_memory<O: Operation, M: Operand>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    let (source, denormal_operand) = M::load(exec, instruction)?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = Context {
        denormal_operand,
        ..x87.context()
    };
    match x87.st(0) {
        Some(destination) => x87.store(0, O::compute(destination, source, &context), &context),
        None => x87.underflow(0),
    };
    Ok(())
}

fn with_register<O: Operation, const POPS: bool>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let (to, from) = (st(instruction.op_register(0)), st(instruction.op_register(1)));
    let x87 = &mut exec.cpu.x87;
    let context = x87.context();
    let stored = match (x87.st(to), x87.st(from)) {
        (Some(destination), Some(source)) => {
            x87.store(to, O::compute(destination, source, &context), &context)
        }
        _ => x87.underflow(to),
    };
    if POPS && stored {
        x87.pop();
    }
    Ok(())
}

/// Number of an x87 register as operands name it.
pub(super) fn st(register: Register) -> usize {
    register.number()
}

/// Replaces ST(0).
fn unary(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    compute: impl FnOnce(Float, &Context) -> Outcome,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = x87.context();
    match x87.st(0) {
        Some(value) => x87.store(0, compute(value, &context), &context),
        None => x87.underflow(0),
    };
    Ok(())
}

/// Changes the sign of ST(0), even of what is no number.
fn sign(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    change: impl FnOnce(bool) -> bool,
) -> Result<(), Exception> {
    unary(exec, instruction, |value, _| {
        Outcome::exact(value.with_sign(change(value.negative)))
    })
}

/// Replaces ST(0) by something computed from it and ST(1). Precision control has no say.
fn with_second(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    compute: impl FnOnce(Float, Float, &Context) -> Outcome,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = x87.context().extended();
    match (x87.st(0), x87.st(1)) {
        (Some(first), Some(second)) => x87.store(0, compute(first, second, &context), &context),
        _ => x87.underflow(0),
    };
    Ok(())
}

fn remainder(exec: &mut Exec<'_>, instruction: &Instruction, kind: Remainder) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = x87.context().extended();
    x87.status &= !flag::C2;
    let (Some(first), Some(second)) = (x87.st(0), x87.st(1)) else {
        x87.underflow(0);
        return Ok(());
    };
    let outcome = float::remainder(first, second, kind, &context);
    // Where there is no quotient they keep what they have.
    if !outcome.value.is_nan() && !context.stops(outcome.flags) {
        x87.status &= !(flag::C0 | flag::C3);
    }
    x87.store(0, outcome, &context);
    Ok(())
}

/// Computes something from ST(0) and ST(1), which are popped, and pushes it.
fn into_second(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    compute: impl FnOnce(Float, Float, &Context) -> Outcome,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = x87.context().extended();
    let stored = match (x87.st(0), x87.st(1)) {
        (Some(first), Some(second)) => x87.store(1, compute(first, second, &context), &context),
        _ => x87.underflow(1),
    };
    if stored {
        x87.pop();
    }
    Ok(())
}
