//! How exceptions and interrupts reach their handlers (Intel SDM vol. 3, chapter 6; in 64-bit mode 6.14).
//!
//! There are no hardware task switches: a task gate raises #GP about its entry of the IDT. There is no virtual-8086
//! mode either: nothing can enter it.

use super::descriptors::{Descriptor, Gate, RPL, code_of, is_null, kind, null_stack};
use super::stack::Stack;
use crate::cpu::{Cpu, SegReg, flags};
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::is_canonical;

use hypervisor::x86_64::{Activity, SegmentAttributes as A};

/// An exception on the way to the handler of a double fault: the processor shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TripleFault;

/// Vectors that are told apart here.
const DEBUG: u8 = 1;
const DOUBLE_FAULT: u8 = 8;
const PAGE_FAULT: u8 = 14;
/// The error code is about the IDT; it is about an event from outside the program.
const CODE_IDT: u32 = 1 << 1;
const CODE_EXTERNAL: u32 = 1 << 0;
/// DR6: which breakpoint was hit. DR7: accesses to debug registers are detected.
const DR6_BREAKPOINTS: u64 = 0xf;
const DR7_DETECT: u64 = 1 << 13;

/// What a handler is entered for.
#[derive(Clone, Copy, Debug)]
struct Event {
    vector: u8,
    error_code: Option<u32>,
    /// `INT n`, `INT3` or `INTO`: the gate must be open to the program.
    software: bool,
    /// RFLAGS.RF as the handler finds it on the stack.
    resume: bool,
}

/// How an exception combines with one that comes while it is delivered (Intel SDM vol. 3, table 6-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

impl Class {
    fn of(vector: u8) -> Self {
        match vector {
            0 | 10..=13 | 21 => Self::Contributory,
            PAGE_FAULT | 20 => Self::PageFault,
            DOUBLE_FAULT => Self::DoubleFault,
            _ => Self::Benign,
        }
    }
}

/// What is delivered when delivering `first` raised `second` (Intel SDM vol. 3, table 6-5).
fn combine(first: &Exception, second: Exception) -> Result<Exception, TripleFault> {
    use Class as C;
    match (Class::of(first.vector), Class::of(second.vector)) {
        (C::DoubleFault, C::Contributory | C::PageFault) => Err(TripleFault),
        (C::Contributory, C::Contributory) | (C::PageFault, C::Contributory | C::PageFault) => {
            Ok(Exception::DOUBLE_FAULT)
        }
        _ => Ok(second),
    }
}

/// The code segment that a gate leads to.
struct Code {
    descriptor: Descriptor,
    cpl: u8,
}

impl Exec<'_> {
    /// Enters the handler of an exception, or of what delivering it raised. RIP is where the handler returns to.
    pub(crate) fn deliver(&mut self, exception: Exception) -> Result<(), TripleFault> {
        let mut exception = exception;
        loop {
            self.trace_exception(&exception);
            self.note_payload(&exception);
            let breakpoint = exception.vector == DEBUG && exception.payload & DR6_BREAKPOINTS != 0;
            let event = Event {
                vector: exception.vector,
                error_code: exception.error_code,
                software: false,
                // A breakpoint on the instruction is the handler's own to step over (18.3.1.1).
                resume: !exception.trap && !breakpoint,
            };
            match self.enter_handler(&event) {
                Ok(()) => return Ok(()),
                Err(second) => {
                    self.note_payload(&second);
                    exception = combine(&exception, second)?;
                }
            }
        }
    }

    /// Enters the handler of an interrupt from outside, maskable or not.
    pub(crate) fn deliver_interrupt(&mut self, vector: u8) -> Result<(), TripleFault> {
        self.trace_interrupt(vector, false);
        let event = Event {
            vector,
            error_code: None,
            software: false,
            resume: false,
        };
        self.enter_handler(&event)
            .or_else(|exception| self.deliver(exception))
    }

    /// Enters the handler of an interrupt that an instruction raised; `checked` where its gate must be open to
    /// the program. RIP is behind the instruction.
    pub(super) fn software_interrupt(&mut self, vector: u8, checked: bool) -> Result<(), Exception> {
        self.trace_interrupt(vector, true);
        self.enter_handler(&Event {
            vector,
            error_code: None,
            software: checked,
            resume: false,
        })
    }

    /// CR2 and DR6 as the handler finds them.
    fn note_payload(&mut self, exception: &Exception) {
        match exception.vector {
            PAGE_FAULT => self.cpu.cr2 = exception.payload,
            // Without a payload it is in DR6 already, or it was an instruction, which leaves DR6 alone.
            DEBUG if exception.payload != 0 => {
                let debug = &mut self.cpu.debug;
                debug.dr6 = debug.dr6 & !DR6_BREAKPOINTS | exception.payload;
                debug.dr7 &= !DR7_DETECT;
                self.cpu.msrs.step_by_instruction();
            }
            _ => {}
        }
    }

    fn enter_handler(&mut self, event: &Event) -> Result<(), Exception> {
        let entered = if self.protected() {
            self.enter_by_gate(event)
        } else {
            self.enter_by_vector_table(event)
        };
        if let Err(mut exception) = entered {
            let code = exception.error_code.as_mut().filter(|_| !event.software);
            if let (Some(code), 10..=13) = (code, exception.vector) {
                *code |= CODE_EXTERNAL;
            }
            return Err(exception);
        }
        (self.cpu.events.shadow_sti, self.cpu.events.shadow_mov_ss) = (false, false);
        if self.cpu.activity == Activity::Halted {
            self.cpu.activity = Activity::Running;
        }
        Ok(())
    }

    /// Real mode (Intel SDM vol. 3, 20.1.4): no error codes.
    fn enter_by_vector_table(&mut self, event: &Event) -> Result<(), Exception> {
        let offset = u64::from(event.vector) * 4;
        if offset + 3 > u64::from(self.cpu.idtr.limit) {
            return Err(Exception::PROTECTION);
        }
        let entry = self.table_read(self.cpu.idtr.base, offset, 4)?;
        let (ip, selector) = (entry & 0xffff, (entry >> 16) as u16);
        let mut stack = self.current_stack();
        let cs = self.cpu.segment(SegReg::Cs).selector;
        for value in [self.cpu.rflags, cs.into(), self.cpu.rip] {
            stack.push(self, 2, value)?;
        }
        let cs = self.real_segment(SegReg::Cs, selector);
        stack.install(self.cpu);
        self.cpu.set_segment(SegReg::Cs, cs);
        self.cpu.rip = ip;
        let off = flags::IF | flags::TF | flags::AC | flags::RF;
        self.cpu.set_rflags(self.cpu.rflags & !off);
        Ok(())
    }

    fn enter_by_gate(&mut self, event: &Event) -> Result<(), Exception> {
        let gate = self.interrupt_gate(event)?;
        let code = self.handler_code(&gate)?;
        let reachable = if self.cpu.long_mode() {
            is_canonical(gate.offset)
        } else {
            gate.offset <= code.descriptor.limit().into()
        };
        if !reachable {
            return Err(Exception::PROTECTION);
        }
        let mut stack = self.handler_stack(&gate, &code)?;
        self.mark_accessed(code.descriptor)?;
        self.push_frame(&mut stack, event, &gate, code.cpl < self.cpu.cpl())?;
        let selector = gate.selector & !RPL | u16::from(code.cpl);
        stack.install(self.cpu);
        self.cpu.segments[SegReg::Cs as usize] = code.descriptor.segment(selector);
        self.cpu.rip = gate.offset;
        self.cpu.rflags &= !(flags::TF | flags::NT | flags::RF | flags::VM);
        if gate.masks_interrupts() {
            self.cpu.rflags &= !flags::IF;
        }
        self.cpu.update_mode();
        Ok(())
    }

    /// The entry of the IDT.
    fn interrupt_gate(&mut self, event: &Event) -> Result<Gate, Exception> {
        let code = (u32::from(event.vector) * 8) | CODE_IDT;
        let refused = Err(Exception::protection(code));
        let long = self.cpu.long_mode();
        let size = if long { 16 } else { 8 };
        let offset = u64::from(event.vector) * size;
        if offset + size - 1 > u64::from(self.cpu.idtr.limit) {
            return refused;
        }
        let base = self.cpu.idtr.base;
        let low = self.table_read(base, offset, 8)?;
        let high = match long {
            true => Some(self.table_read(base, offset + 8, 8)?),
            false => None,
        };
        let gate = Gate::of(low, high);
        let known = match gate.kind {
            kind::INTERRUPT_GATE | kind::TRAP_GATE => true,
            kind::INTERRUPT_GATE16 | kind::TRAP_GATE16 => !long,
            _ => false,
        };
        if !known || event.software && gate.dpl < self.cpu.cpl() {
            return refused;
        }
        if !gate.present {
            return Err(Exception::not_present(code));
        }
        Ok(gate)
    }

    fn handler_code(&mut self, gate: &Gate) -> Result<Code, Exception> {
        if is_null(gate.selector) {
            return Err(Exception::PROTECTION);
        }
        let descriptor = self.descriptor(gate.selector, Exception::protection)?;
        let cpl = self.cpu.cpl();
        let width = descriptor.attributes() & (A::LONG | A::BIG);
        let wrong_width = self.cpu.long_mode() && width != A::LONG;
        let code = code_of(gate.selector);
        if !descriptor.is_code() || descriptor.dpl() > cpl || wrong_width {
            return Err(Exception::protection(code));
        }
        if !descriptor.is_present() {
            return Err(Exception::not_present(code));
        }
        let conforming = descriptor.is_conforming();
        Ok(Code {
            descriptor,
            cpl: if conforming { cpl } else { descriptor.dpl() },
        })
    }

    fn handler_stack(&mut self, gate: &Gate, code: &Code) -> Result<Stack, Exception> {
        let inner = code.cpl < self.cpu.cpl();
        if !self.cpu.long_mode() {
            return if inner {
                self.inner_stack(code.cpl)
            } else {
                Ok(self.current_stack())
            };
        }
        let ist = gate.count & 7;
        let pointer = if inner || ist != 0 {
            self.task_stack64(code.cpl, ist)?
        } else {
            self.cpu.gpr[Cpu::RSP]
        };
        let segment = if inner {
            null_stack(code.cpl.into(), code.cpl)
        } else {
            *self.cpu.segment(SegReg::Ss)
        };
        // Aligned before anything is pushed (6.14.2).
        Ok(self.stack64(segment, pointer & !0xf, code.cpl))
    }

    fn push_frame(
        &mut self,
        stack: &mut Stack,
        event: &Event,
        gate: &Gate,
        inner: bool,
    ) -> Result<(), Exception> {
        let long = self.cpu.long_mode();
        let size = match gate.kind {
            _ if long => 8,
            kind::INTERRUPT_GATE | kind::TRAP_GATE => 4,
            _ => 2,
        };
        let cpu = &*self.cpu;
        let (cs, ss) = (cpu.segment(SegReg::Cs).selector, cpu.segment(SegReg::Ss).selector);
        let (rip, rsp) = (cpu.rip, cpu.gpr[Cpu::RSP]);
        let image = cpu.rflags | if event.resume { flags::RF } else { 0 };
        if long || inner {
            stack.push(self, size, ss.into())?;
            stack.push(self, size, rsp)?;
        }
        for value in [image, cs.into(), rip] {
            stack.push(self, size, value)?;
        }
        match event.error_code {
            Some(code) => stack.push(self, size, code.into()),
            None => Ok(()),
        }
    }
}
