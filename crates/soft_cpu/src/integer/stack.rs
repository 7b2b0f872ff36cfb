//! The stack: pushes, pops, frames, and the flags on it.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use super::flags::{AC, IF, IOPL, RF, TF, VM};
use super::operands::{by_word_size, is_register, size_of};
use crate::cpu::{Cpu, Mode, SegReg};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask};
use crate::memory::Access;

/// RFLAGS.VIF and RFLAGS.VIP (Intel SDM vol. 3, 2.3).
const VIF: u64 = 1 << 19;
const VIP: u64 = 1 << 20;
/// CR4.VME.
const CR4_VME: u64 = 1 << 0;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match instruction.mnemonic() {
        Mnemonic::Push => match instruction.op0_kind() {
            // Segment registers have no size here.
            OpKind::Register => by_word_size!(size, push_register),
            OpKind::Memory => by_word_size!(size, push_memory),
            _ => by_word_size!(size, push_immediate),
        },
        Mnemonic::Pop if is_register(instruction, 0) => by_word_size!(size, pop_register),
        Mnemonic::Pop => by_word_size!(size, pop_memory),
        Mnemonic::Pusha => Some(push_all::<2>),
        Mnemonic::Pushad => Some(push_all::<4>),
        Mnemonic::Popa => Some(pop_all::<2>),
        Mnemonic::Popad => Some(pop_all::<4>),
        Mnemonic::Enter => match instruction.code() {
            Code::Enterw_imm16_imm8 => Some(enter::<2>),
            Code::Enterd_imm16_imm8 => Some(enter::<4>),
            _ => Some(enter::<8>),
        },
        Mnemonic::Leave => match instruction.code() {
            Code::Leavew => Some(leave::<2>),
            Code::Leaved => Some(leave::<4>),
            _ => Some(leave::<8>),
        },
        Mnemonic::Pushf => Some(push_flags::<2>),
        Mnemonic::Pushfd => Some(push_flags::<4>),
        Mnemonic::Pushfq => Some(push_flags::<8>),
        Mnemonic::Popf => Some(pop_flags::<2>),
        Mnemonic::Popfd => Some(pop_flags::<4>),
        Mnemonic::Popfq => Some(pop_flags::<8>),
        _ => None,
    }
}

/// The register is read before the stack pointer moves, which matters to `PUSH rSP`.
fn push_register<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.register::<S>(instruction.op0_register());
    exec.push(S, value)
}

fn push_memory<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.load_operand::<S>(instruction)?;
    exec.push(S, value)
}

fn push_immediate<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.push(S, instruction.immediate(0) & mask(S))
}

fn pop_register<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.pop(S)?;
    exec.set_register::<S>(instruction.op0_register(), value);
    Ok(())
}

/// An address that is relative to the stack pointer is worked out after the pop.
fn pop_memory<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let before = exec.cpu.gpr[Cpu::RSP];
    let value = exec.pop(S)?;
    let stored = exec.store_operand::<S>(instruction, value);
    if stored.is_err() {
        exec.cpu.gpr[Cpu::RSP] = before;
    }
    stored
}

fn push_all<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let top = exec.stack_pointer();
    let stack_mask = Mode::mask(exec.cpu.mode.stack_bits);
    let place = |number: usize| top.wrapping_sub((number as u64 + 1) * S as u64) & stack_mask;
    for number in 0..8 {
        let linear = exec.linear(SegReg::Ss, place(number), S as u64, Access::Write)?;
        exec.linear_probe(exec.cpu.mode.set, linear, S as u64, Access::Write)?;
    }
    for number in 0..8 {
        exec.store(SegReg::Ss, place(number), S, exec.number::<S>(number))?;
    }
    exec.set_stack_pointer(place(7));
    Ok(())
}

/// What was pushed for the stack pointer is passed over.
fn pop_all<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let mut values = [0; 8];
    for (depth, value) in values.iter_mut().enumerate() {
        *value = exec.peek(depth as u64 * S as u64, S)?;
    }
    let top = exec.stack_pointer().wrapping_add(8 * S as u64);
    for (depth, value) in values.into_iter().enumerate() {
        let number = 7 - depth;
        if number != Cpu::RSP {
            exec.set_number::<S>(number, value);
        }
    }
    exec.set_stack_pointer(top);
    Ok(())
}

fn enter<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let room = u64::from(instruction.immediate16());
    let level = u64::from(instruction.immediate8_2nd()) % 32;
    let stack_mask = Mode::mask(exec.cpu.mode.stack_bits);
    let step = S as u64;
    let top = exec.stack_pointer().wrapping_sub(step) & stack_mask;
    let base = exec.cpu.gpr[Cpu::RBP] & stack_mask;
    exec.store(SegReg::Ss, top, S, exec.number::<S>(Cpu::RBP))?;
    for outer in 1..level {
        let from = base.wrapping_sub(outer * step) & stack_mask;
        let pointer = exec.load(SegReg::Ss, from, S)?;
        exec.store(
            SegReg::Ss,
            top.wrapping_sub(outer * step) & stack_mask,
            S,
            pointer,
        )?;
    }
    if level > 0 {
        exec.store(SegReg::Ss, top.wrapping_sub(level * step) & stack_mask, S, top)?;
    }
    let end = top.wrapping_sub(level * step + room) & stack_mask;
    // The new top must be writable, though nothing is written there (Intel SDM vol. 2, ENTER).
    let linear = exec.linear(SegReg::Ss, end, step, Access::Write)?;
    exec.linear_probe(exec.cpu.mode.set, linear, step, Access::Write)?;
    exec.set_number::<S>(Cpu::RBP, top);
    exec.set_stack_pointer(end);
    Ok(())
}

fn leave<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let stack_mask = Mode::mask(exec.cpu.mode.stack_bits);
    let base = exec.cpu.gpr[Cpu::RBP] & stack_mask;
    let outer = exec.load(SegReg::Ss, base, S)?;
    exec.set_stack_pointer(base.wrapping_add(S as u64));
    exec.set_number::<S>(Cpu::RBP, outer);
    Ok(())
}

/// Whether this is virtual-8086 code that must not touch IF; `Err` where the instruction is not for it at all.
fn virtual_interrupts<const S: usize>(exec: &Exec<'_>) -> Result<bool, Exception> {
    let cpu = &*exec.cpu;
    if cpu.rflags & VM == 0 || cpu.rflags & IOPL == IOPL {
        return Ok(false);
    }
    if S == 2 && cpu.cr4 & CR4_VME != 0 {
        return Ok(true);
    }
    Err(Exception::PROTECTION)
}

fn push_flags<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let mut image = exec.cpu.rflags & !(VM | RF);
    if virtual_interrupts::<S>(exec)? {
        // IOPL reads as 3, and IF as VIF (Intel SDM vol. 3, 20.3).
        let virtual_if = if image & VIF == 0 { 0 } else { IF };
        image = image & !IF | IOPL | virtual_if;
    }
    exec.push(S, image)
}

/// Who may change what: Intel SDM vol. 2, POPF.
fn pop_flags<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let virtually = virtual_interrupts::<S>(exec)?;
    let value = exec.peek(0, S)?;
    let old = exec.cpu.rflags;
    let mut changed = 0x4dd5 | if S == 2 { 0 } else { AC | super::flags::ID };
    let level = u64::from(exec.cpu.cpl());
    if level == 0 {
        changed |= IOPL;
    }
    if level <= (old & IOPL) >> 12 {
        changed |= IF;
    }
    let mut new = old & !(changed | RF) | value & changed;
    if virtually {
        if value & TF != 0 || value & IF != 0 && old & VIP != 0 {
            return Err(Exception::PROTECTION);
        }
        let virtual_if = if value & IF == 0 { 0 } else { VIF };
        new = new & !VIF | virtual_if;
    }
    let top = exec.stack_pointer().wrapping_add(S as u64);
    exec.set_stack_pointer(top);
    exec.cpu.set_rflags(new);
    Ok(())
}
