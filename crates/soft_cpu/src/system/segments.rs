//! Loads and stores of segment registers.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::descriptors::{RPL, code_of, is_null, null_segment, null_stack};
use crate::cpu::SegReg;
use crate::exception::Exception;
use crate::exec::{Exec, Handler, address_mask, segment_register};

use hypervisor::x86_64::Segment;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let segment = |index| {
        instruction.op_kind(index) == OpKind::Register && instruction.op_register(index).is_segment_register()
    };
    match instruction.mnemonic() {
        Mnemonic::Mov if segment(0) => Some(load),
        Mnemonic::Mov if segment(1) => Some(store),
        Mnemonic::Push if segment(0) => Some(push),
        Mnemonic::Pop if segment(0) => Some(pop),
        Mnemonic::Lds => Some(|exec, instruction| load_pointer(exec, instruction, SegReg::Ds)),
        Mnemonic::Les => Some(|exec, instruction| load_pointer(exec, instruction, SegReg::Es)),
        Mnemonic::Lfs => Some(|exec, instruction| load_pointer(exec, instruction, SegReg::Fs)),
        Mnemonic::Lgs => Some(|exec, instruction| load_pointer(exec, instruction, SegReg::Gs)),
        Mnemonic::Lss => Some(|exec, instruction| load_pointer(exec, instruction, SegReg::Ss)),
        _ => None,
    }
}

/// Whether SS is loaded, which changes the width of the stack and holds interrupts off.
pub(super) fn loads_stack_segment(instruction: &Instruction) -> bool {
    let ss = instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::SS;
    ss && matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Pop)
        || instruction.mnemonic() == Mnemonic::Lss
}

fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let register = instruction.op0_register();
    if register == Register::CS {
        return Err(Exception::UNDEFINED);
    }
    let selector = if instruction.op1_kind() == OpKind::Register {
        exec.gpr(instruction.op1_register()) as u16
    } else {
        let (segment, offset) = exec.effective_address(instruction);
        exec.load(segment, offset, 2)? as u16
    };
    let register = segment_register(register);
    let segment = exec.segment_for(register, selector)?;
    exec.cpu.set_segment(register, segment);
    exec.shadow_after(register);
    Ok(())
}

/// To memory 16 bits; a register is written whole.
fn store(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let selector = exec
        .cpu
        .segment(segment_register(instruction.op1_register()))
        .selector;
    if instruction.op0_kind() == OpKind::Register {
        exec.set_gpr(instruction.op0_register(), selector.into());
        return Ok(());
    }
    let (segment, offset) = exec.effective_address(instruction);
    exec.store(segment, offset, 2, selector.into())
}

/// How many bytes `PUSH` and `POP` of a segment register move.
fn stack_size(instruction: &Instruction) -> usize {
    instruction.stack_pointer_increment().unsigned_abs() as usize
}

fn push(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let selector = exec
        .cpu
        .segment(segment_register(instruction.op0_register()))
        .selector;
    exec.push(stack_size(instruction), selector.into())
}

fn pop(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let size = stack_size(instruction);
    let register = segment_register(instruction.op0_register());
    let selector = exec.peek(0, size)? as u16;
    let segment = exec.segment_for(register, selector)?;
    // As wide as the stack was before SS is loaded.
    exec.set_stack_pointer(exec.stack_pointer().wrapping_add(size as u64));
    exec.cpu.set_segment(register, segment);
    exec.shadow_after(register);
    Ok(())
}

/// `LDS` and its like: an offset into a general register, then a selector.
fn load_pointer(exec: &mut Exec<'_>, instruction: &Instruction, register: SegReg) -> Result<(), Exception> {
    let (offset, selector) = exec.far_pointer(instruction, instruction.op0_register().size())?;
    let segment = exec.segment_for(register, selector)?;
    exec.cpu.set_segment(register, segment);
    exec.set_gpr(instruction.op0_register(), offset);
    Ok(())
}

impl Exec<'_> {
    /// A far pointer in memory: an offset of `size` bytes and a selector.
    pub(super) fn far_pointer(
        &mut self,
        instruction: &Instruction,
        size: usize,
    ) -> Result<(u64, u16), Exception> {
        let (segment, at) = self.effective_address(instruction);
        let offset = self.load(segment, at, size)?;
        let next = at.wrapping_add(size as u64) & address_mask(instruction, self.cpu.mode.bits);
        let selector = self.load(segment, next, 2)?;
        Ok((offset, selector as u16))
    }

    /// After a load of SS interrupts wait for one instruction, which sets the stack pointer (Intel SDM vol. 3,
    /// 6.8.3).
    fn shadow_after(&mut self, register: SegReg) {
        if register == SegReg::Ss {
            self.cpu.events.shadow_mov_ss = true;
        }
    }

    /// A segment register of real mode: only selector and base change, whatever limit and type are.
    pub(super) fn real_segment(&self, register: SegReg, selector: u16) -> Segment {
        Segment {
            selector,
            base: u64::from(selector) << 4,
            ..*self.cpu.segment(register)
        }
    }

    /// What a load of `register` with `selector` puts there (Intel SDM vol. 2, MOV).
    fn segment_for(&mut self, register: SegReg, selector: u16) -> Result<Segment, Exception> {
        if !self.protected() {
            return Ok(self.real_segment(register, selector));
        }
        if register == SegReg::Ss {
            return self.stack_segment_for(selector);
        }
        if is_null(selector) {
            return Ok(null_segment(selector));
        }
        let descriptor = self.descriptor(selector, Exception::protection)?;
        let level = self.cpu.cpl().max((selector & RPL) as u8);
        if !descriptor.is_readable() || !descriptor.is_conforming() && level > descriptor.dpl() {
            return Err(Exception::protection(code_of(selector)));
        }
        if !descriptor.is_present() {
            return Err(Exception::not_present(code_of(selector)));
        }
        self.mark_accessed(descriptor)?;
        Ok(descriptor.segment(selector))
    }

    fn stack_segment_for(&mut self, selector: u16) -> Result<Segment, Exception> {
        let cpl = self.cpu.cpl();
        let same_level = selector & RPL == u16::from(cpl);
        if is_null(selector) {
            return if self.cpu.mode.bits == 64 && cpl != 3 && same_level {
                Ok(null_stack(selector, cpl))
            } else {
                Err(Exception::PROTECTION)
            };
        }
        let descriptor = self.descriptor(selector, Exception::protection)?;
        if !same_level || !descriptor.is_writable_data() || descriptor.dpl() != cpl {
            return Err(Exception::protection(code_of(selector)));
        }
        if !descriptor.is_present() {
            return Err(Exception::stack(code_of(selector)));
        }
        self.mark_accessed(descriptor)?;
        Ok(descriptor.segment(selector))
    }
}
