//! Far jumps, calls and returns (Intel SDM vol. 3, 5.8; vol. 2, JMP, CALL, RET).
//!
//! There are no hardware task switches: a jump or call to a task raises #GP about its selector.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use super::descriptors::{Descriptor, Gate, RPL, code_of, is_null, kind, null_stack};
use super::stack::{Stack, put_pointer, stack_bits};
use crate::cpu::{Cpu, SegReg};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask};
use crate::memory::is_canonical;

use hypervisor::x86_64::{Segment, SegmentAttributes as A};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    use Code as C;
    match (instruction.mnemonic(), instruction.code()) {
        (Mnemonic::Jmp, C::Jmp_ptr1616 | C::Jmp_m1616) => Some(jump::<2>),
        (Mnemonic::Jmp, C::Jmp_ptr1632 | C::Jmp_m1632) => Some(jump::<4>),
        (Mnemonic::Jmp, C::Jmp_m1664) => Some(jump::<8>),
        (Mnemonic::Call, C::Call_ptr1616 | C::Call_m1616) => Some(call::<2>),
        (Mnemonic::Call, C::Call_ptr1632 | C::Call_m1632) => Some(call::<4>),
        (Mnemonic::Call, C::Call_m1664) => Some(call::<8>),
        (_, C::Retfw | C::Retfw_imm16) => Some(return_far::<2>),
        (_, C::Retfd | C::Retfd_imm16) => Some(return_far::<4>),
        (_, C::Retfq | C::Retfq_imm16) => Some(return_far::<8>),
        _ => None,
    }
}

/// Offset and selector of a far jump or call.
fn target<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(u64, u16), Exception> {
    match instruction.op0_kind() {
        OpKind::FarBranch16 => Ok((
            instruction.far_branch16().into(),
            instruction.far_branch_selector(),
        )),
        OpKind::FarBranch32 => Ok((
            instruction.far_branch32().into(),
            instruction.far_branch_selector(),
        )),
        _ => exec.far_pointer(instruction, S),
    }
}

fn jump<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let (offset, selector) = target::<S>(exec, instruction)?;
    if !exec.protected() {
        return exec.go_to_real(selector, offset, None);
    }
    let found = exec.code_or_gate(selector)?;
    let cpl = exec.cpu.cpl();
    match found {
        Found::Code(code) => {
            exec.check_same_level(code, selector)?;
            exec.go_to(code, selector, cpl, offset, None)
        }
        Found::Gate(gate) => {
            let code = exec.gate_code(&gate)?;
            if !code.is_conforming() && code.dpl() != cpl {
                return Err(Exception::protection(code_of(gate.selector)));
            }
            exec.go_to(code, gate.selector, cpl, gate.offset, None)
        }
    }
}

fn call<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let (offset, selector) = target::<S>(exec, instruction)?;
    if !exec.protected() {
        return exec.go_to_real(selector, offset, Some(S));
    }
    match exec.code_or_gate(selector)? {
        Found::Code(code) => {
            exec.check_same_level(code, selector)?;
            exec.go_to(code, selector, exec.cpu.cpl(), offset, Some(S))
        }
        Found::Gate(gate) => exec.call_gate(&gate),
    }
}

fn return_far<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let size = S as u64;
    let release = if instruction.op_count() == 0 {
        0
    } else {
        u64::from(instruction.immediate16())
    };
    let ip = exec.peek(0, S)?;
    let cs = exec.peek(size, S)? as u16;
    let outer = exec.protected() && (cs & RPL) as u8 > exec.cpu.cpl();
    let stack = if outer {
        let pointer = exec.peek(2 * size + release, S)?;
        let ss = exec.peek(3 * size + release, S)? as u16;
        Some((ss, pointer.wrapping_add(release)))
    } else {
        None
    };
    let target = Return {
        ip,
        cs,
        stack,
        popped: 2 * size + release,
    };
    exec.return_to(&target, exec.cpu.rflags)
}

/// Where `RET` or `IRET` goes back to.
pub(super) struct Return {
    pub(super) ip: u64,
    pub(super) cs: u16,
    /// SS and the stack pointer, where those change.
    pub(super) stack: Option<(u16, u64)>,
    /// Bytes to pop where they do not.
    pub(super) popped: u64,
}

/// What the selector of a far transfer names.
enum Found {
    Code(Descriptor),
    Gate(Gate),
}

impl Exec<'_> {
    /// Goes back, with all checks, and leaves `rflags` in RFLAGS.
    pub(super) fn return_to(&mut self, target: &Return, rflags: u64) -> Result<(), Exception> {
        if !self.protected() {
            let cs = self.real_segment(SegReg::Cs, target.cs);
            if target.ip > cs.limit.into() {
                return Err(Exception::PROTECTION);
            }
            self.set_stack_pointer(self.stack_pointer().wrapping_add(target.popped));
            return self.arrive(cs, target.ip, rflags);
        }
        let cpl = (target.cs & RPL) as u8;
        let code = self.return_code(target.cs)?;
        let long = self.is_long_code(code);
        let ip = self.check_offset(code, target.ip)?;
        let ss = match target.stack {
            Some((ss, _)) => Some(self.return_stack(ss, cpl, long)?),
            None => None,
        };
        self.mark_accessed(code)?;
        let outer = cpl > self.cpu.cpl();
        match (ss, target.stack) {
            (Some(ss), Some((_, pointer))) => {
                self.cpu.segments[SegReg::Ss as usize] = ss;
                put_pointer(self.cpu, pointer, if long { 64 } else { stack_bits(&ss) });
            }
            _ => self.set_stack_pointer(self.stack_pointer().wrapping_add(target.popped)),
        }
        self.arrive(code.segment(target.cs), ip, rflags)?;
        if outer {
            self.cpu.drop_inner_segments(cpl);
        }
        Ok(())
    }

    /// The last step of a far transfer.
    fn arrive(&mut self, cs: Segment, ip: u64, rflags: u64) -> Result<(), Exception> {
        self.cpu.segments[SegReg::Cs as usize] = cs;
        self.cpu.rip = ip;
        self.cpu.set_rflags(rflags);
        self.cpu.update_mode();
        Ok(())
    }

    /// The code segment of a return.
    fn return_code(&mut self, selector: u16) -> Result<Descriptor, Exception> {
        if is_null(selector) {
            return Err(Exception::PROTECTION);
        }
        let code = code_of(selector);
        let descriptor = self.descriptor(selector, Exception::protection)?;
        let rpl = (selector & RPL) as u8;
        let level_fits = if descriptor.is_conforming() {
            descriptor.dpl() <= rpl
        } else {
            descriptor.dpl() == rpl
        };
        if rpl < self.cpu.cpl() || !descriptor.is_code() || !level_fits {
            return Err(Exception::protection(code));
        }
        self.check_code(descriptor, selector)?;
        Ok(descriptor)
    }

    /// The stack segment of a return to level `cpl`, in 64-bit code where `long`.
    fn return_stack(&mut self, selector: u16, cpl: u8, long: bool) -> Result<Segment, Exception> {
        if is_null(selector) {
            return if long && cpl != 3 {
                Ok(null_stack(selector, cpl))
            } else {
                Err(Exception::PROTECTION)
            };
        }
        let code = code_of(selector);
        let descriptor = self.descriptor(selector, Exception::protection)?;
        let level_fits = selector & RPL == u16::from(cpl) && descriptor.dpl() == cpl;
        if !level_fits || !descriptor.is_writable_data() {
            return Err(Exception::protection(code));
        }
        if !descriptor.is_present() {
            return Err(Exception::stack(code));
        }
        self.mark_accessed(descriptor)?;
        Ok(descriptor.segment(selector))
    }

    /// Whether this is 64-bit code.
    fn is_long_code(&self, code: Descriptor) -> bool {
        self.cpu.long_mode() && code.attributes().contains(A::LONG)
    }

    /// That a code segment is there, and has one width.
    fn check_code(&self, code: Descriptor, selector: u16) -> Result<(), Exception> {
        if self.is_long_code(code) && code.attributes().contains(A::BIG) {
            return Err(Exception::protection(code_of(selector)));
        }
        if !code.is_present() {
            return Err(Exception::not_present(code_of(selector)));
        }
        Ok(())
    }

    /// That code can be at `offset` of a segment; gives it as wide as the segment's code has it.
    fn check_offset(&self, code: Descriptor, offset: u64) -> Result<u64, Exception> {
        if self.is_long_code(code) {
            return if is_canonical(offset) {
                Ok(offset)
            } else {
                Err(Exception::PROTECTION)
            };
        }
        let offset = offset & 0xffff_ffff;
        if offset > code.limit().into() {
            return Err(Exception::PROTECTION);
        }
        Ok(offset)
    }

    /// What a jump or call names: code, or a call gate that is open to the program.
    fn code_or_gate(&mut self, selector: u16) -> Result<Found, Exception> {
        if is_null(selector) {
            return Err(Exception::PROTECTION);
        }
        let code = code_of(selector);
        let descriptor = self.descriptor(selector, Exception::protection)?;
        if descriptor.is_code() {
            return Ok(Found::Code(descriptor));
        }
        let high = match descriptor.system() {
            Some(kind::CALL_GATE) if self.cpu.long_mode() => {
                let high = self.upper_half(selector)?;
                Some(high.ok_or(Exception::protection(code))?)
            }
            Some(kind::CALL_GATE | kind::CALL_GATE16) if !self.cpu.long_mode() => None,
            _ => return Err(Exception::protection(code)),
        };
        let gate = Gate::of(descriptor.bits, high);
        if gate.dpl < self.cpu.cpl() || gate.dpl < (selector & RPL) as u8 {
            return Err(Exception::protection(code));
        }
        if !gate.present {
            return Err(Exception::not_present(code));
        }
        Ok(Found::Gate(gate))
    }

    /// The code behind a call gate.
    fn gate_code(&mut self, gate: &Gate) -> Result<Descriptor, Exception> {
        if is_null(gate.selector) {
            return Err(Exception::PROTECTION);
        }
        let descriptor = self.descriptor(gate.selector, Exception::protection)?;
        let width = descriptor.attributes() & (A::LONG | A::BIG);
        let wrong_width = self.cpu.long_mode() && width != A::LONG;
        if !descriptor.is_code() || descriptor.dpl() > self.cpu.cpl() || wrong_width {
            return Err(Exception::protection(code_of(gate.selector)));
        }
        self.check_code(descriptor, gate.selector)?;
        Ok(descriptor)
    }

    /// The rules of a jump or call straight to a code segment.
    fn check_same_level(&self, code: Descriptor, selector: u16) -> Result<(), Exception> {
        let cpl = self.cpu.cpl();
        let allowed = if code.is_conforming() {
            code.dpl() <= cpl
        } else {
            (selector & RPL) as u8 <= cpl && code.dpl() == cpl
        };
        if !allowed {
            return Err(Exception::protection(code_of(selector)));
        }
        self.check_code(code, selector)
    }

    /// Goes to `offset` in `code`, at the level there is; where `pushed`, with a return address of that width.
    fn go_to(
        &mut self,
        code: Descriptor,
        selector: u16,
        cpl: u8,
        offset: u64,
        pushed: Option<usize>,
    ) -> Result<(), Exception> {
        let ip = self.check_offset(code, offset)?;
        self.mark_accessed(code)?;
        if let Some(size) = pushed {
            let mut stack = self.current_stack();
            self.push_return(&mut stack, size)?;
            stack.install(self.cpu);
        }
        let cs = code.segment(selector & !RPL | u16::from(cpl));
        self.arrive(cs, ip, self.cpu.rflags)
    }

    fn push_return(&mut self, stack: &mut Stack, size: usize) -> Result<(), Exception> {
        let (cs, rip) = (self.cpu.segment(SegReg::Cs).selector, self.cpu.rip);
        stack.push(self, size, cs.into())?;
        stack.push(self, size, rip)
    }

    fn call_gate(&mut self, gate: &Gate) -> Result<(), Exception> {
        let code = self.gate_code(gate)?;
        let cpl = self.cpu.cpl();
        let size = match gate.kind {
            _ if self.cpu.long_mode() => 8,
            kind::CALL_GATE16 => 2,
            _ => 4,
        };
        let inner = if code.is_conforming() { cpl } else { code.dpl() };
        if inner == cpl {
            return self.go_to(code, gate.selector, cpl, gate.offset, Some(size));
        }
        let ip = self.check_offset(code, gate.offset)?;
        let mut stack = if self.cpu.long_mode() {
            let pointer = self.task_stack64(inner, 0)?;
            self.stack64(null_stack(inner.into(), inner), pointer, inner)
        } else {
            self.inner_stack(inner)?
        };
        self.mark_accessed(code)?;
        let (ss, rsp) = (self.cpu.segment(SegReg::Ss).selector, self.cpu.gpr[Cpu::RSP]);
        stack.push(self, size, ss.into())?;
        stack.push(self, size, rsp)?;
        // Parameters do not exist in IA-32e mode.
        let count = if size == 8 { 0 } else { u64::from(gate.count) };
        for index in (0..count).rev() {
            let parameter = self.peek(index * size as u64, size)?;
            stack.push(self, size, parameter)?;
        }
        self.push_return(&mut stack, size)?;
        stack.install(self.cpu);
        let cs = code.segment(gate.selector & !RPL | u16::from(inner));
        self.arrive(cs, ip, self.cpu.rflags)
    }

    /// A far jump or call of real mode.
    fn go_to_real(&mut self, selector: u16, offset: u64, pushed: Option<usize>) -> Result<(), Exception> {
        let cs = self.real_segment(SegReg::Cs, selector);
        if offset & !mask(4) != 0 || offset > cs.limit.into() {
            return Err(Exception::PROTECTION);
        }
        if let Some(size) = pushed {
            let mut stack = self.current_stack();
            self.push_return(&mut stack, size)?;
            stack.install(self.cpu);
        }
        self.arrive(cs, offset, self.cpu.rflags)
    }
}
