//! Moves that leave all flags alone, and those between AH and the flags.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::flags::{AF, CF, FIXED, PF, SF, ZF};
use super::operands::{by_size, by_word_size, immediate, is_register, size_of};
use crate::cpu::Cpu;
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask, sign_extend};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match instruction.mnemonic() {
        Mnemonic::Mov => mov(instruction),
        Mnemonic::Movnti => by_size!(size, store_register),
        Mnemonic::Movzx => extending::<false>(instruction),
        Mnemonic::Movsx | Mnemonic::Movsxd => extending::<true>(instruction),
        Mnemonic::Lea => by_word_size!(size, lea),
        Mnemonic::Movbe if is_register(instruction, 0) => by_word_size!(size, movbe_load),
        Mnemonic::Movbe => by_word_size!(size, movbe_store),
        Mnemonic::Bswap => by_word_size!(size, bswap),
        Mnemonic::Cbw => Some(widen_accumulator::<1, 2>),
        Mnemonic::Cwde => Some(widen_accumulator::<2, 4>),
        Mnemonic::Cdqe => Some(widen_accumulator::<4, 8>),
        Mnemonic::Cwd => Some(sign_to_dx::<2>),
        Mnemonic::Cdq => Some(sign_to_dx::<4>),
        Mnemonic::Cqo => Some(sign_to_dx::<8>),
        Mnemonic::Xlatb => Some(xlat),
        Mnemonic::Lahf => Some(lahf),
        Mnemonic::Sahf => Some(sahf),
        _ => None,
    }
}

/// `MOV` between general registers, memory and immediates.
fn mov(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match (instruction.op0_kind(), instruction.op1_kind()) {
        // Control, debug and segment registers have no size here.
        (OpKind::Register, OpKind::Register) if size_of(instruction, 1) == 0 => None,
        (OpKind::Register, OpKind::Register) => by_size!(size, copy_register),
        (OpKind::Register, OpKind::Memory) => by_size!(size, load_register),
        (OpKind::Register, _) => by_size!(size, load_immediate),
        (OpKind::Memory, OpKind::Register) if size_of(instruction, 1) == 0 => None,
        (OpKind::Memory, OpKind::Register) => by_size!(size, store_register),
        (OpKind::Memory, _) => by_size!(size, store_immediate),
        _ => None,
    }
}

fn copy_register<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.register::<S>(instruction.op1_register());
    exec.set_register::<S>(instruction.op0_register(), value);
    Ok(())
}

fn load_register<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.load_operand::<S>(instruction)?;
    exec.set_register::<S>(instruction.op0_register(), value);
    Ok(())
}

fn load_immediate<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.set_register::<S>(instruction.op0_register(), immediate::<S>(instruction));
    Ok(())
}

fn store_register<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.register::<S>(instruction.op1_register());
    exec.store_operand::<S>(instruction, value)
}

fn store_immediate<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.store_operand::<S>(instruction, immediate::<S>(instruction))
}

/// `MOVZX`, `MOVSX`, `MOVSXD`.
fn extending<const SIGNED: bool>(instruction: &Instruction) -> Option<Handler> {
    let (to, from) = (size_of(instruction, 0), size_of(instruction, 1));
    let handler: Handler = match (to, from) {
        (2, 1) => extend::<SIGNED, 2, 1>,
        (4, 1) => extend::<SIGNED, 4, 1>,
        (8, 1) => extend::<SIGNED, 8, 1>,
        (2, 2) => extend::<SIGNED, 2, 2>,
        (4, 2) => extend::<SIGNED, 4, 2>,
        (8, 2) => extend::<SIGNED, 8, 2>,
        (4, 4) => extend::<SIGNED, 4, 4>,
        (8, 4) => extend::<SIGNED, 8, 4>,
        _ => return None,
    };
    Some(handler)
}

fn extend<const SIGNED: bool, const TO: usize, const FROM: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let value = exec.read_sized::<FROM>(instruction, 1)?;
    let value = if SIGNED { sign_extend(value, FROM) } else { value };
    exec.set_register::<TO>(instruction.op0_register(), value);
    Ok(())
}

fn lea<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let offset = exec.offset(instruction);
    exec.set_register::<S>(instruction.op0_register(), offset);
    Ok(())
}

/// The low `S` bytes the other way round.
fn swapped<const S: usize>(value: u64) -> u64 {
    value.swap_bytes() >> (64 - S * 8)
}

fn movbe_load<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.load_operand::<S>(instruction)?;
    exec.set_register::<S>(instruction.op0_register(), swapped::<S>(value));
    Ok(())
}

fn movbe_store<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.register::<S>(instruction.op1_register());
    exec.store_operand::<S>(instruction, swapped::<S>(value))
}

/// With 16 bits the result is undefined; processors clear the register.
fn bswap<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let register = instruction.op0_register();
    let value = if S == 2 {
        0
    } else {
        swapped::<S>(exec.register::<S>(register))
    };
    exec.set_register::<S>(register, value);
    Ok(())
}

fn widen_accumulator<const FROM: usize, const TO: usize>(
    exec: &mut Exec<'_>,
    _: &Instruction,
) -> Result<(), Exception> {
    let value = sign_extend(exec.accumulator::<FROM>(), FROM);
    exec.set_number::<TO>(Cpu::RAX, value);
    Ok(())
}

fn sign_to_dx<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let negative = exec.accumulator::<S>() >> (S * 8 - 1) != 0;
    exec.set_number::<S>(Cpu::RDX, if negative { mask(S) } else { 0 });
    Ok(())
}

/// The operand is memory at rBX + AL.
fn xlat(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.load_operand::<1>(instruction)?;
    exec.set_number::<1>(Cpu::RAX, value);
    Ok(())
}

const IN_AH: u64 = SF | ZF | AF | PF | CF;

fn lahf(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.set_gpr(Register::AH, exec.cpu.rflags & IN_AH | FIXED);
    Ok(())
}

fn sahf(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let ah = exec.gpr(Register::AH);
    exec.cpu.rflags = exec.cpu.rflags & !IN_AH | ah & IN_AH;
    Ok(())
}
