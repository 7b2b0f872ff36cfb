//! Single elements into and out of registers, and the same element everywhere.

use iced_x86::{Instruction, Mnemonic as M, OpKind};

use super::drivers::handler;
use super::operands::{Shape, Vector, lane, low, set_lane};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        M::Pinsrb | M::Vpinsrb => handler!(insert::<8>),
        M::Pinsrw | M::Vpinsrw => handler!(insert::<16>),
        M::Pinsrd | M::Vpinsrd => handler!(insert::<32>),
        M::Pinsrq | M::Vpinsrq => handler!(insert::<64>),
        M::Pextrb | M::Vpextrb => handler!(extract::<8>),
        M::Pextrw | M::Vpextrw => handler!(extract::<16>),
        M::Pextrd | M::Vpextrd | M::Extractps | M::Vextractps => handler!(extract::<32>),
        M::Pextrq | M::Vpextrq => handler!(extract::<64>),
        M::Insertps | M::Vinsertps => handler!(insert_single),
        M::Vinsertf128 | M::Vinserti128 => handler!(insert_half),
        M::Vextractf128 | M::Vextracti128 => handler!(extract_half),
        M::Vpbroadcastb => handler!(broadcast::<1>),
        M::Vpbroadcastw => handler!(broadcast::<2>),
        M::Vpbroadcastd | M::Vbroadcastss => handler!(broadcast::<4>),
        M::Vpbroadcastq | M::Vbroadcastsd => handler!(broadcast::<8>),
        M::Vbroadcastf128 | M::Vbroadcasti128 => handler!(broadcast_half),
        _ => return None,
    })
}

/// Where element `index` of `BITS` bits is: its chunk, and its place in there.
fn place<const BITS: usize>(index: u8) -> (usize, usize) {
    let at = usize::from(index) * BITS % 128;
    (at / 64, at % 64)
}

/// `PINSRx`.
fn insert<const BITS: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let element = exec.read(instruction, shape.second())?;
    let mut value = exec.vector(instruction.op_register(shape.first()));
    let (chunk, at) = place::<BITS>(instruction.immediate8());
    let mask = u64::MAX >> (64 - BITS);
    value[chunk] = value[chunk] & !(mask << at) | (element & mask) << at;
    exec.set_vector(instruction.op0_register(), value, shape);
    Ok(())
}

/// `PEXTRx`, `EXTRACTPS`.
fn extract<const BITS: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.shape(instruction)?;
    let (chunk, at) = place::<BITS>(instruction.immediate8());
    let element = exec.vector(instruction.op1_register())[chunk] >> at & u64::MAX >> (64 - BITS);
    exec.write(instruction, 0, element)
}

/// `INSERTPS`: one single into another place, and zeros where the immediate says so.
fn insert_single(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let control = instruction.immediate8();
    let from = exec.narrow_operand(instruction, shape.second(), 4)?;
    let in_memory = instruction.op_kind(shape.second()) == OpKind::Memory;
    let (chunk, at) = place::<32>(if in_memory { 0 } else { control >> 6 });
    let element = u128::from(from[chunk] >> at & 0xffff_ffff);
    let mut value = lane(&exec.vector(instruction.op_register(shape.first())), 0);
    let to = u32::from(control >> 4 & 3) * 32;
    value = value & !(0xffff_ffff << to) | element << to;
    for index in 0..4 {
        if control >> index & 1 != 0 {
            value &= !(0xffff_ffff << (index * 32));
        }
    }
    exec.set_vector(instruction.op0_register(), low(value), shape);
    Ok(())
}

/// `VINSERTx128`.
fn insert_half(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let from = exec.narrow_operand(instruction, 2, 16)?;
    let mut value = exec.vector(instruction.op1_register());
    set_lane(
        &mut value,
        usize::from(instruction.immediate8() & 1),
        lane(&from, 0),
    );
    exec.set_vector(instruction.op0_register(), value, shape);
    Ok(())
}

/// `VEXTRACTx128`.
fn extract_half(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let from = exec.vector(instruction.op1_register());
    let value = low(lane(&from, usize::from(instruction.immediate8() & 1)));
    if instruction.op0_kind() == OpKind::Memory {
        return exec.vector_store(instruction, &value, 16, false);
    }
    let narrow = Shape { wide: false, ..shape };
    exec.set_vector(instruction.op0_register(), value, narrow);
    Ok(())
}

/// `VPBROADCASTx`, `VBROADCASTSx`: the lowest element of `SIZE` bytes.
fn broadcast<const SIZE: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let mut chunk = exec.narrow_operand(instruction, 1, SIZE)?[0] & u64::MAX >> (64 - SIZE * 8);
    let mut width = SIZE * 8;
    while width < 64 {
        chunk |= chunk << width;
        width *= 2;
    }
    exec.set_vector(instruction.op0_register(), [chunk; 4], shape);
    Ok(())
}

/// `VBROADCASTx128`.
fn broadcast_half(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let from: Vector = exec.narrow_operand(instruction, 1, 16)?;
    exec.set_vector(
        instruction.op0_register(),
        [from[0], from[1], from[0], from[1]],
        shape,
    );
    Ok(())
}
