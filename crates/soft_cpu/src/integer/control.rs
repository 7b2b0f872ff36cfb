//! Near jumps, calls and returns, loops, and what does nothing but raise an exception.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::flags::ZF;
use super::operands::{by_word_size, size_of};
use crate::cpu::{Cpu, SegReg};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask, sign_extend, undefined};
use crate::memory::is_canonical;

impl Exec<'_> {
    /// Goes on at `target`, an offset in the code segment.
    #[inline]
    pub(super) fn jump(&mut self, target: u64) -> Result<(), Exception> {
        self.check_target(target)?;
        self.cpu.rip = target;
        Ok(())
    }

    /// Whether code can be at `target`: the branch itself faults where it cannot.
    #[inline]
    fn check_target(&self, target: u64) -> Result<(), Exception> {
        let there = if self.cpu.mode.bits == 64 {
            is_canonical(target)
        } else {
            target <= self.cpu.segment(SegReg::Cs).limit.into()
        };
        if there { Ok(()) } else { Err(Exception::PROTECTION) }
    }
}

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    let direct = matches!(
        instruction.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    );
    match instruction.mnemonic() {
        Mnemonic::Jmp if direct => Some(jump_direct),
        Mnemonic::Jmp if is_far(instruction) => None,
        Mnemonic::Jmp => by_word_size!(size, jump_indirect),
        Mnemonic::Call if direct => by_word_size!(size, call_direct),
        Mnemonic::Call if is_far(instruction) => None,
        Mnemonic::Call => by_word_size!(size, call_indirect),
        Mnemonic::Ret => by_word_size!(return_size(instruction), return_near),
        Mnemonic::Loop => counting(instruction, Until::Zero),
        Mnemonic::Loope => counting(instruction, Until::NotEqual),
        Mnemonic::Loopne => counting(instruction, Until::Equal),
        Mnemonic::Jcxz => Some(jump_if_zero::<2>),
        Mnemonic::Jecxz => Some(jump_if_zero::<4>),
        Mnemonic::Jrcxz => Some(jump_if_zero::<8>),
        Mnemonic::Bound if size == 2 => Some(bound::<2>),
        Mnemonic::Bound => Some(bound::<4>),
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => Some(undefined),
        _ => None,
    }
}

/// Whether a jump or call goes through a far pointer.
fn is_far(instruction: &Instruction) -> bool {
    instruction.is_jmp_far()
        || instruction.is_call_far()
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far_indirect()
}

/// Width of the return address of `RET`: its operand size, which the stack pointer's step tells.
fn return_size(instruction: &Instruction) -> usize {
    use iced_x86::Code;
    match instruction.code() {
        Code::Retnw | Code::Retnw_imm16 => 2,
        Code::Retnd | Code::Retnd_imm16 => 4,
        _ => 8,
    }
}

fn jump_direct(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.jump(instruction.near_branch64())
}

fn jump_indirect<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let target = exec.read_sized::<S>(instruction, 0)?;
    exec.jump(target)
}

#[inline]
fn call<const S: usize>(exec: &mut Exec<'_>, target: u64) -> Result<(), Exception> {
    exec.check_target(target)?;
    exec.push(S, exec.cpu.rip)?;
    exec.cpu.rip = target;
    Ok(())
}

fn call_direct<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    call::<S>(exec, instruction.near_branch64())
}

fn call_indirect<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let target = exec.read_sized::<S>(instruction, 0)?;
    call::<S>(exec, target)
}

/// With an immediate that many more bytes are popped.
fn return_near<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let target = exec.peek(0, S)?;
    exec.jump(target)?;
    let more = if instruction.op_count() == 0 {
        0
    } else {
        instruction.immediate16().into()
    };
    let top = exec.stack_pointer().wrapping_add(S as u64 + more);
    exec.set_stack_pointer(top);
    Ok(())
}

/// What ends a loop besides its counter.
enum Until {
    Zero,
    NotEqual,
    Equal,
}

fn counting(instruction: &Instruction, until: Until) -> Option<Handler> {
    use iced_x86::Code as C;
    let size = match instruction.code() {
        C::Loop_rel8_16_CX | C::Loop_rel8_32_CX => 2,
        C::Loope_rel8_16_CX | C::Loope_rel8_32_CX => 2,
        C::Loopne_rel8_16_CX | C::Loopne_rel8_32_CX => 2,
        C::Loop_rel8_16_RCX | C::Loop_rel8_64_RCX => 8,
        C::Loope_rel8_16_RCX | C::Loope_rel8_64_RCX => 8,
        C::Loopne_rel8_16_RCX | C::Loopne_rel8_64_RCX => 8,
        _ => 4,
    };
    match until {
        Until::Zero => by_word_size!(size, count_down, 0, 0),
        Until::NotEqual => by_word_size!(size, count_down, ZF, ZF),
        Until::Equal => by_word_size!(size, count_down, ZF, 0),
    }
}

/// `LOOPcc`: goes on while the counter is not zero and the flags in `LOOKED_AT` are `WANTED`.
fn count_down<const LOOKED_AT: u64, const WANTED: u64, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let left = exec.number::<S>(Cpu::RCX).wrapping_sub(1) & mask(S);
    if left != 0 && exec.cpu.rflags & LOOKED_AT == WANTED {
        exec.jump(instruction.near_branch64())?;
    }
    exec.set_number::<S>(Cpu::RCX, left);
    Ok(())
}

fn jump_if_zero<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    if exec.number::<S>(Cpu::RCX) == 0 {
        return exec.jump(instruction.near_branch64());
    }
    Ok(())
}

/// A signed index against the two bounds in memory.
fn bound<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let (segment, offset) = exec.effective_address(instruction);
    let lower = exec.load(segment, offset, S)?;
    let next = offset.wrapping_add(S as u64) & crate::exec::address_mask(instruction, exec.cpu.mode.bits);
    let upper = exec.load(segment, next, S)?;
    let signed = |value| sign_extend(value, S) as i64;
    let index = signed(exec.register::<S>(instruction.op0_register()));
    if index < signed(lower) || index > signed(upper) {
        return Err(Exception::BOUND);
    }
    Ok(())
}
