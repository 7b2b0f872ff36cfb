//! Instructions that leave two numbers where one was.

use iced_x86::{Instruction, Mnemonic};

use super::float::{self, Context, Float, Outcome, flag};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Fsin => |exec, instruction| trigonometric(exec, instruction, float::sine),
        Mnemonic::Fcos => |exec, instruction| trigonometric(exec, instruction, float::cosine),
        Mnemonic::Fsincos => |exec, instruction| {
            pair(exec, instruction, flag::C2, |a, context| {
                let sine = float::sine(a, context)?;
                let cosine = float::cosine(a, context)?;
                // C1 is the sine's.
                let second = Outcome {
                    flags: cosine.flags & !flag::C1,
                    ..cosine
                };
                Some((sine, second))
            })
        },
        Mnemonic::Fptan => |exec, instruction| {
            pair(exec, instruction, flag::C2, |a, context| {
                let tangent = float::tangent(a, context)?;
                let second = if tangent.value.is_nan() {
                    tangent.value
                } else {
                    Float::ONE
                };
                Some((tangent, Outcome::exact(second)))
            })
        },
        Mnemonic::Fxtract => |exec, instruction| {
            pair(exec, instruction, 0, |a, context| {
                let (exponent, significand) = float::extract(a, context);
                Some((exponent, Outcome::exact(significand)))
            })
        },
        _ => return None,
    };
    Some(handler)
}

/// Replaces ST(0), or sets C2 where that is out of range.
fn trigonometric(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    compute: impl FnOnce(Float, &Context) -> Option<Outcome>,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = x87.context().extended();
    x87.status &= !flag::C2;
    let Some(value) = x87.st(0) else {
        x87.underflow(0);
        return Ok(());
    };
    match compute(value, &context) {
        None => x87.finish(flag::C2),
        Some(outcome) => {
            x87.store(0, outcome, &context);
        }
    }
    Ok(())
}

/// Replaces ST(0) by the first result and pushes the second, or sets C2. Of the condition codes `clears` are
/// cleared before.
fn pair(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    clears: u16,
    compute: impl FnOnce(Float, &Context) -> Option<(Outcome, Outcome)>,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    exec.note(instruction);
    let x87 = &mut exec.cpu.x87;
    let context = x87.context().extended();
    x87.status &= !clears;
    let overflow = !x87.is_empty(7);
    let value = match x87.st(0) {
        Some(value) if !overflow => value,
        first => {
            if x87.stack_fault(first.is_some()) {
                x87.set_st(0, Float::INDEFINITE);
                x87.turn(7);
                x87.set_st(0, Float::INDEFINITE);
                x87.finish(if first.is_some() { flag::C1 } else { 0 });
            }
            return Ok(());
        }
    };
    let Some((first, second)) = compute(value, &context) else {
        x87.finish(flag::C2);
        return Ok(());
    };
    let flags = first.flags | second.flags;
    if x87.store(0, Outcome { flags, ..first }, &context) {
        x87.push(second, &context);
        x87.finish(flags);
    }
    Ok(())
}
