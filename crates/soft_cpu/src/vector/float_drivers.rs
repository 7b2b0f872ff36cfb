//! The ways in which instructions apply a function of floating-point numbers to their operands.

use iced_x86::Instruction;

use super::float::{Environment, Format};
use super::operands::{Shape, Vector};
use crate::cpu::control;
use crate::exception::Exception;
use crate::exec::Exec;

impl Exec<'_> {
    /// What MXCSR says now.
    #[inline]
    pub(super) fn float_environment(&self) -> Environment {
        Environment::of(self.cpu.vector.mxcsr)
    }

    /// Sets the flags that were raised; #XM where one is not masked, or #UD where the operating system does not
    /// know that one (Intel SDM vol. 1, 11.5.2, and vol. 3, 2.5: OSXMMEXCPT).
    #[inline]
    pub(super) fn commit_float(&mut self, environment: &Environment) -> Result<(), Exception> {
        let (flags, exception) = environment.outcome();
        self.cpu.vector.mxcsr |= flags;
        if !exception {
            return Ok(());
        }
        Err(if self.cpu.cr4 & control::CR4_OSXMMEXCPT != 0 {
            Exception::SIMD
        } else {
            Exception::UNDEFINED
        })
    }

    /// Ends a step of an instruction that has several: raises its exception, if it has one.
    #[inline]
    pub(super) fn end_float_step(&mut self, environment: &mut Environment) -> Result<(), Exception> {
        if environment.outcome().1 {
            return self.commit_float(environment);
        }
        environment.end_step();
        Ok(())
    }
}

/// Every number of `a` with the one of `b` in the same place.
#[inline]
pub(super) fn each2<F: Format>(
    shape: Shape,
    a: &Vector,
    b: &Vector,
    mut f: impl FnMut(u64, u64) -> u64,
) -> Vector {
    let mut result = [0; 4];
    for index in 0..shape.chunks() {
        let mut at = 0;
        while at < 64 {
            result[index] |= f(a[index] >> at & F::ALL, b[index] >> at & F::ALL) << at;
            at += F::BITS;
        }
    }
    result
}

/// Two packed sources.
#[inline]
pub(super) fn packed2<F: Format>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    mut f: impl FnMut(&mut Environment, u64, u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (a, b) = exec.sources(instruction, shape)?;
    let mut environment = exec.float_environment();
    let result = each2::<F>(shape, &a, &b, |a, b| f(&mut environment, a, b));
    exec.commit_float(&environment)?;
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// One packed source.
#[inline]
pub(super) fn packed1<F: Format>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    mut f: impl FnMut(&mut Environment, u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let a = exec.vector_operand(instruction, 1, shape)?;
    let mut environment = exec.float_environment();
    let result = each2::<F>(shape, &a, &a, |a, _| f(&mut environment, a));
    exec.commit_float(&environment)?;
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// The low numbers of two sources; the rest comes from the first.
#[inline]
pub(super) fn scalar2<F: Format>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    mut f: impl FnMut(&mut Environment, u64, u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let b = exec.narrow_operand(instruction, shape.second(), F::BITS as usize / 8)?[0] & F::ALL;
    let mut result = exec.vector(instruction.op_register(shape.first()));
    let mut environment = exec.float_environment();
    let made = f(&mut environment, result[0] & F::ALL, b);
    exec.commit_float(&environment)?;
    result[0] = result[0] & !F::ALL | made;
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// The low number of the second source; the rest comes from the first.
#[inline]
pub(super) fn scalar1<F: Format>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    mut f: impl FnMut(&mut Environment, u64) -> u64,
) -> Result<(), Exception> {
    scalar2::<F>(exec, instruction, |environment, _, a| f(environment, a))
}
