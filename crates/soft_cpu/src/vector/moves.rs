//! Moves of whole registers, of their low elements and of their halves.

use iced_x86::{Code as C, Instruction, Mnemonic as M, OpKind};

use super::drivers::handler;
use super::lanes::{Lane, signs};
use super::operands::{Vector, low};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    match instruction.code() {
        // The mnemonic is a string instruction's as well.
        C::Movsd_xmm_xmmm64 | C::Movsd_xmmm64_xmm => return Some(handler!(scalar::<8>)),
        _ => {}
    }
    whole(instruction.mnemonic()).or_else(|| partial(instruction.mnemonic()))
}

fn whole(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Movaps
        | M::Movapd
        | M::Movdqa
        | M::Movntps
        | M::Movntpd
        | M::Movntdq
        | M::Movntdqa
        | M::Vmovaps
        | M::Vmovapd
        | M::Vmovdqa
        | M::Vmovntps
        | M::Vmovntpd
        | M::Vmovntdq
        | M::Vmovntdqa => handler!(whole_vector, true),
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu | M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu => {
            handler!(whole_vector, false)
        }
        _ => return None,
    })
}

fn partial(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Movd | M::Movq | M::Vmovd | M::Vmovq => handler!(low_element),
        M::Movss | M::Vmovss => handler!(scalar::<4>),
        M::Vmovsd => handler!(scalar::<8>),
        M::Movlps | M::Movlpd | M::Vmovlps | M::Vmovlpd => handler!(half::<0>),
        M::Movhps | M::Movhpd | M::Vmovhps | M::Vmovhpd => handler!(half::<1>),
        M::Movhlps | M::Vmovhlps => handler!(between_halves, |a, b| [b[1], a[1], 0, 0]),
        M::Movlhps | M::Vmovlhps => handler!(between_halves, |a, b| [a[0], b[0], 0, 0]),
        M::Movddup | M::Vmovddup => handler!(duplicate_even),
        M::Movmskps | M::Vmovmskps => handler!(sign_mask::<u32>),
        M::Movmskpd | M::Vmovmskpd => handler!(sign_mask::<u64>),
        M::Pmovmskb | M::Vpmovmskb => handler!(sign_mask::<u8>),
        M::Pmovsxbw | M::Vpmovsxbw => handler!(extend, i16::from as fn(i8) -> i16),
        M::Pmovsxbd | M::Vpmovsxbd => handler!(extend, i32::from as fn(i8) -> i32),
        M::Pmovsxbq | M::Vpmovsxbq => handler!(extend, i64::from as fn(i8) -> i64),
        M::Pmovsxwd | M::Vpmovsxwd => handler!(extend, i32::from as fn(i16) -> i32),
        M::Pmovsxwq | M::Vpmovsxwq => handler!(extend, i64::from as fn(i16) -> i64),
        M::Pmovsxdq | M::Vpmovsxdq => handler!(extend, i64::from as fn(i32) -> i64),
        M::Pmovzxbw | M::Vpmovzxbw => handler!(extend, u16::from as fn(u8) -> u16),
        M::Pmovzxbd | M::Vpmovzxbd => handler!(extend, u32::from as fn(u8) -> u32),
        M::Pmovzxbq | M::Vpmovzxbq => handler!(extend, u64::from as fn(u8) -> u64),
        M::Pmovzxwd | M::Vpmovzxwd => handler!(extend, u32::from as fn(u16) -> u32),
        M::Pmovzxwq | M::Vpmovzxwq => handler!(extend, u64::from as fn(u16) -> u64),
        M::Pmovzxdq | M::Vpmovzxdq => handler!(extend, u64::from as fn(u32) -> u64),
        _ => return None,
    })
}

/// A whole register to, from or between registers.
fn whole_vector(exec: &mut Exec<'_>, instruction: &Instruction, aligned: bool) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    if instruction.op0_kind() == OpKind::Memory {
        let value = exec.vector(instruction.op1_register());
        return exec.vector_store(instruction, &value, shape.size(), aligned);
    }
    let value = if instruction.op1_kind() == OpKind::Memory {
        exec.vector_load(instruction, shape.size(), aligned)?
    } else {
        exec.vector(instruction.op1_register())
    };
    exec.set_vector(instruction.op0_register(), value, shape);
    Ok(())
}

/// `MOVD`, `MOVQ`: the low element, which fills a vector register with zeros above.
fn low_element(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let value = if instruction.op1_register().is_xmm() {
        exec.vector(instruction.op1_register())[0]
    } else {
        exec.read(instruction, 1)?
    };
    if instruction.op0_register().is_xmm() {
        exec.set_vector(instruction.op0_register(), [value, 0, 0, 0], shape);
        return Ok(());
    }
    exec.write(instruction, 0, value)
}

/// `MOVSS`, `MOVSD`: between registers the rest stays (or comes from the first source), from memory it is cleared.
fn scalar<const SIZE: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    if instruction.op0_kind() == OpKind::Memory {
        let value = exec.vector(instruction.op1_register())[0];
        return exec.chunk_store(instruction, value, SIZE);
    }
    if instruction.op1_kind() == OpKind::Memory {
        let value = exec.narrow_operand(instruction, 1, SIZE)?;
        exec.set_vector(instruction.op0_register(), value, shape);
        return Ok(());
    }
    let mut value = exec.vector(instruction.op_register(shape.first()));
    let from = exec.vector(instruction.op_register(shape.second()));
    value[0] = merge_low::<SIZE>(value[0], from[0]);
    exec.set_vector(instruction.op0_register(), value, shape);
    Ok(())
}

/// `rest` with its low `SIZE` bytes replaced.
#[inline]
fn merge_low<const SIZE: usize>(rest: u64, from: u64) -> u64 {
    let mask = u64::MAX >> (64 - SIZE * 8);
    rest & !mask | from & mask
}

/// `MOVLPx`, `MOVHPx`: one half to or from memory.
fn half<const HALF: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    if instruction.op0_kind() == OpKind::Memory {
        let value = exec.vector(instruction.op1_register())[HALF];
        return exec.chunk_store(instruction, value, 8);
    }
    let loaded = exec.narrow_operand(instruction, shape.second(), 8)?[0];
    let mut value = exec.vector(instruction.op_register(shape.first()));
    value[HALF] = loaded;
    exec.set_vector(instruction.op0_register(), value, shape);
    Ok(())
}

/// `MOVHLPS`, `MOVLHPS`.
fn between_halves(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    f: impl Fn(Vector, Vector) -> Vector,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (a, b) = exec.sources(instruction, shape)?;
    exec.set_vector(instruction.op0_register(), f(a, b), shape);
    Ok(())
}

/// `MOVDDUP`: of 128 bits it reads only the lower half.
fn duplicate_even(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let size = if shape.wide { 32 } else { 8 };
    let from = exec.narrow_operand(instruction, 1, size)?;
    let value = [from[0], from[0], from[2], from[2]];
    exec.set_vector(instruction.op0_register(), value, shape);
    Ok(())
}

/// `MOVMSKPx`, `PMOVMSKB`.
fn sign_mask<T: Lane>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let from = exec.vector(instruction.op1_register());
    let per_chunk = 64 / T::BITS as usize;
    let mask = (0..shape.chunks()).fold(0, |mask, index| {
        mask | signs::<T>(from[index]) << (index * per_chunk)
    });
    exec.set_gpr(instruction.op0_register(), mask);
    Ok(())
}

/// `PMOVSXxx`, `PMOVZXxx`: the lowest elements made wider.
fn extend<S: Lane, D: Lane>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    widen: fn(S) -> D,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (narrow, wide) = (S::BITS as usize, D::BITS as usize);
    let size = shape.size() * narrow / wide;
    let from = exec.narrow_operand(instruction, 1, size)?;
    let mut result = low(0);
    for index in 0..shape.size() * 8 / wide {
        let (at, to) = (index * narrow, index * wide);
        let value = widen(S::take(from[at / 64] >> (at % 64)));
        result[to / 64] |= value.put() << (to % 64);
    }
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}
