//! One element of each string instruction.

use iced_x86::Instruction;

use super::super::flags::{self, ZF};
use crate::cpu::{Cpu, SegReg};
use crate::exception::Exception;
use crate::exec::{Exec, segment_register};

/// A string instruction on elements of `S` bytes with addresses of `A`.
pub(super) trait Element {
    /// Does one element, moves SI and DI, and says whether a repetition goes on.
    fn step<const S: usize, const A: usize>(
        exec: &mut Exec<'_>,
        instruction: &Instruction,
    ) -> Result<bool, Exception>;

    /// Does as many of the next `count` elements as can be done at once, moves SI and DI, and gives their
    /// number; 0 where they have to be done one by one.
    fn stretch<const S: usize, const A: usize>(
        _: &mut Exec<'_>,
        _: &Instruction,
        _count: u64,
    ) -> Result<u64, Exception> {
        Ok(0)
    }
}

pub(super) struct Movs;
pub(super) struct Stos;
pub(super) struct Lods;
pub(super) struct Scas;
pub(super) struct Cmps;

#[inline]
fn load_source<const S: usize, const A: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<u64, Exception> {
    let segment = segment_register(instruction.memory_segment());
    let at = exec.number::<A>(Cpu::RSI);
    exec.load(segment, at, S)
}

#[inline]
fn load_target<const S: usize, const A: usize>(exec: &mut Exec<'_>) -> Result<u64, Exception> {
    let at = exec.number::<A>(Cpu::RDI);
    exec.load(SegReg::Es, at, S)
}

#[inline]
fn store_target<const S: usize, const A: usize>(exec: &mut Exec<'_>, value: u64) -> Result<(), Exception> {
    let at = exec.number::<A>(Cpu::RDI);
    exec.store(SegReg::Es, at, S, value)
}

/// Sets the flags of `a` - `b`, and says whether the prefix wants another element.
#[inline]
fn compare<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction, a: u64, b: u64) -> bool {
    let (_, status) = flags::subtract::<S>(a, b, 0);
    exec.cpu.set_status(status);
    (status & ZF != 0) == instruction.has_repe_prefix()
}

impl Element for Movs {
    fn step<const S: usize, const A: usize>(
        exec: &mut Exec<'_>,
        instruction: &Instruction,
    ) -> Result<bool, Exception> {
        let value = load_source::<S, A>(exec, instruction)?;
        store_target::<S, A>(exec, value)?;
        exec.advance::<S, A>(Cpu::RSI);
        exec.advance::<S, A>(Cpu::RDI);
        Ok(true)
    }

    fn stretch<const S: usize, const A: usize>(
        exec: &mut Exec<'_>,
        instruction: &Instruction,
        count: u64,
    ) -> Result<u64, Exception> {
        exec.move_stretch::<S, A>(segment_register(instruction.memory_segment()), count)
    }
}

impl Element for Stos {
    fn step<const S: usize, const A: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<bool, Exception> {
        store_target::<S, A>(exec, exec.accumulator::<S>())?;
        exec.advance::<S, A>(Cpu::RDI);
        Ok(true)
    }

    fn stretch<const S: usize, const A: usize>(
        exec: &mut Exec<'_>,
        _: &Instruction,
        count: u64,
    ) -> Result<u64, Exception> {
        exec.fill_stretch::<S, A>(count)
    }
}

impl Element for Lods {
    fn step<const S: usize, const A: usize>(
        exec: &mut Exec<'_>,
        instruction: &Instruction,
    ) -> Result<bool, Exception> {
        let value = load_source::<S, A>(exec, instruction)?;
        exec.set_number::<S>(Cpu::RAX, value);
        exec.advance::<S, A>(Cpu::RSI);
        Ok(true)
    }
}

impl Element for Scas {
    fn step<const S: usize, const A: usize>(
        exec: &mut Exec<'_>,
        instruction: &Instruction,
    ) -> Result<bool, Exception> {
        let value = load_target::<S, A>(exec)?;
        exec.advance::<S, A>(Cpu::RDI);
        let a = exec.accumulator::<S>();
        Ok(compare::<S>(exec, instruction, a, value))
    }
}

impl Element for Cmps {
    fn step<const S: usize, const A: usize>(
        exec: &mut Exec<'_>,
        instruction: &Instruction,
    ) -> Result<bool, Exception> {
        // Where both fault, the target's fault is the one that is seen (Zen).
        let b = load_target::<S, A>(exec)?;
        let a = load_source::<S, A>(exec, instruction)?;
        exec.advance::<S, A>(Cpu::RSI);
        exec.advance::<S, A>(Cpu::RDI);
        Ok(compare::<S>(exec, instruction, a, b))
    }
}
