//! Stacks that a change of privilege switches to, before they are SS:RSP.

use hypervisor::x86_64::{Segment, SegmentAttributes as A};

use super::descriptors::{code_of, is_null};
use crate::cpu::{Cpu, Mode, SegReg, TlbSet, control, flags};
use crate::exception::Exception;
use crate::exec::{Exec, mask};
use crate::memory::{is_canonical, within_limit};

/// A stack to push to, whichever one SS:RSP is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    /// What SS is to be.
    pub(super) segment: Segment,
    pointer: u64,
    bits: u8,
    set: TlbSet,
    /// What #SS says where it is full.
    code: u32,
}

impl Stack {
    /// Pushes the low `size` bytes of `value`.
    pub(super) fn push(&mut self, exec: &mut Exec<'_>, size: usize, value: u64) -> Result<(), Exception> {
        let top = self.pointer.wrapping_sub(size as u64) & Mode::mask(self.bits);
        let linear = if self.bits == 64 {
            if !is_canonical(top) || !is_canonical(top.wrapping_add(size as u64 - 1)) {
                return Err(Exception::stack(self.code));
            }
            top
        } else {
            if !within_limit(&self.segment, top, size as u64) {
                return Err(Exception::stack(self.code));
            }
            self.segment.base.wrapping_add(top) & 0xffff_ffff
        };
        exec.linear_store(self.set, linear, size, value & mask(size))?;
        self.pointer = top;
        Ok(())
    }

    /// Makes this SS:RSP. [`Cpu::update_mode`] is still due.
    pub(super) fn install(&self, cpu: &mut Cpu) {
        cpu.segments[SegReg::Ss as usize] = self.segment;
        put_pointer(cpu, self.pointer, self.bits);
    }
}

/// Writes a stack pointer as wide as its stack is: a 16-bit one leaves the rest of the register.
pub(super) fn put_pointer(cpu: &mut Cpu, pointer: u64, bits: u8) {
    let slot = &mut cpu.gpr[Cpu::RSP];
    *slot = match bits {
        16 => *slot & !0xffff | pointer & 0xffff,
        bits => pointer & Mode::mask(bits),
    };
}

/// Width of the stack pointer with this SS outside 64-bit mode.
pub(super) fn stack_bits(segment: &Segment) -> u8 {
    if segment.attributes.contains(A::BIG) {
        32
    } else {
        16
    }
}

impl Exec<'_> {
    /// What the explicit accesses of code of level `cpl` may reach.
    pub(super) fn set_of(&self, cpl: u8) -> TlbSet {
        let open = self.cpu.cr4 & control::CR4_SMAP != 0 && self.cpu.rflags & flags::AC != 0;
        match cpl {
            3 => TlbSet::User,
            _ if open => TlbSet::SupervisorOpen,
            _ => TlbSet::Supervisor,
        }
    }

    /// SS:RSP as it is.
    pub(super) fn current_stack(&self) -> Stack {
        Stack {
            segment: *self.cpu.segment(SegReg::Ss),
            pointer: self.stack_pointer(),
            bits: self.cpu.mode.stack_bits,
            set: self.set_of(self.cpu.cpl()),
            code: 0,
        }
    }

    /// A stack of 64-bit code of level `cpl`.
    pub(super) fn stack64(&self, segment: Segment, pointer: u64, cpl: u8) -> Stack {
        Stack {
            segment,
            pointer,
            bits: 64,
            set: self.set_of(cpl),
            code: 0,
        }
    }

    /// The stack that the task state segment has for level `cpl` outside IA-32e mode (Intel SDM vol. 3, 6.12.1).
    pub(super) fn inner_stack(&mut self, cpl: u8) -> Result<Stack, Exception> {
        let (selector, pointer) = self.task_stack(cpl)?;
        let code = code_of(selector);
        let invalid = Err(Exception::invalid_tss(code));
        if is_null(selector) {
            return Err(Exception::invalid_tss(0));
        }
        let descriptor = self.descriptor(selector, Exception::invalid_tss)?;
        let right_level = selector & 3 == u16::from(cpl) && descriptor.dpl() == cpl;
        if !right_level || !descriptor.is_writable_data() {
            return invalid;
        }
        if !descriptor.is_present() {
            return Err(Exception::stack(code));
        }
        self.mark_accessed(descriptor)?;
        let segment = descriptor.segment(selector);
        let bits = stack_bits(&segment);
        Ok(Stack {
            segment,
            pointer: pointer & Mode::mask(bits),
            bits,
            set: self.set_of(cpl),
            code,
        })
    }
}
