//! A processor with descriptor tables, for tests of what an operating system does.

use std::sync::Mutex;

use guest_memory::GuestMemory;
use hypervisor::GuestIo;
use hypervisor::x86_64::{Segment, SegmentAttributes as A, TableRegister};

use super::{flat_cpu, flat_cpu64};
use crate::cpu::{Cpu, SegReg, control};
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::Memory;
use crate::system::offered_leaves;

/// Where things lie.
pub(crate) const GDT: u64 = 0x1000;
pub(crate) const IDT: u64 = 0x2000;
pub(crate) const TSS: u64 = 0x3000;
pub(crate) const INNER_STACK: u64 = 0x6000;
pub(crate) const IST1: u64 = 0x7000;
pub(crate) const CODE: u64 = 0x8000;
pub(crate) const HANDLER: u64 = 0x9000;
pub(crate) const DATA: u64 = 0xa000;
pub(crate) const STACK: u64 = 0xc000;
const RAM: u64 = 0x10_0000;

/// Selectors, in an order that `SYSCALL` and `SYSRET` can use.
pub(crate) const CODE64: u16 = 0x08;
pub(crate) const FLAT: u16 = 0x10;
pub(crate) const CODE32: u16 = 0x18;
pub(crate) const USER_CODE32: u16 = 0x23;
pub(crate) const USER_DATA: u16 = 0x2b;
pub(crate) const USER_CODE64: u16 = 0x33;
pub(crate) const TASK: u16 = 0x38;
/// Room for two 16-byte descriptors of a test's own, and where the table ends.
pub(crate) const SPARE: u16 = 0x48;
pub(crate) const BEYOND: u16 = 0x68;

/// A device that remembers what was written to its ports, and answers reads with the port's number.
#[derive(Default)]
pub(crate) struct Ports {
    pub(crate) written: Mutex<Vec<(u16, u64, usize)>>,
    reads: Mutex<Vec<u16>>,
}

impl GuestIo for Ports {
    fn mmio_read(&self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}
    fn port_read(&self, port: u16, data: &mut [u8]) {
        self.reads.lock().unwrap().push(port);
        let len = data.len();
        data.copy_from_slice(&u64::from(port).to_le_bytes()[..len]);
    }
    fn port_write(&self, port: u16, data: &[u8]) {
        let value = data
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte));
        self.written.lock().unwrap().push((port, value, data.len()));
    }
    fn eoi(&self, _vector: u8) {}
}

impl Ports {
    /// How many reads there were.
    pub(crate) fn reads(&self) -> usize {
        self.reads.lock().unwrap().len()
    }
}

/// A processor at [`CODE`] with tables, a task and 1 MiB of RAM, without paging.
pub(crate) struct Machine {
    pub(crate) cpu: Box<Cpu>,
    pub(crate) memory: Memory,
    pub(crate) ports: Ports,
}

impl Machine {
    /// In 64-bit mode at level 0.
    pub(crate) fn long() -> Self {
        let mut machine = Self::with(flat_cpu64(offered_leaves(), CODE));
        machine.cpu.cr4 |= control::CR4_PAE;
        machine.set_quad(TSS + 4, INNER_STACK);
        machine.set_quad(TSS + 36, IST1);
        machine
    }

    /// In 32-bit protected mode at level 0.
    pub(crate) fn protected() -> Self {
        let mut machine = Self::with(flat_cpu(offered_leaves(), CODE));
        machine.cpu.set_segment(SegReg::Cs, Segment::flat_code32(CODE32));
        machine.set_quad(TSS + 4, u64::from(FLAT) << 32 | INNER_STACK);
        machine
    }

    /// In real mode, with code and stack in segment 0 and the vector table at 0.
    pub(crate) fn real() -> Self {
        let mut machine = Self::with(flat_cpu(offered_leaves(), CODE));
        machine.cpu.cr0 &= !control::CR0_PE;
        machine.cpu.segments = [Segment::real_mode(0, false); 6];
        machine.cpu.set_segment(SegReg::Cs, Segment::real_mode(0, true));
        machine.cpu.idtr = TableRegister {
            base: 0,
            limit: 0x3ff,
        };
        machine
    }

    fn with(mut cpu: Box<Cpu>) -> Self {
        let ram = GuestMemory::anonymous(&[(0, RAM)]).unwrap();
        let memory = Memory::default().with(&ram, false);
        cpu.gdtr = TableRegister {
            base: GDT,
            limit: BEYOND - 1,
        };
        cpu.idtr = TableRegister {
            base: IDT,
            limit: 0xfff,
        };
        cpu.tr = Segment::busy_tss(TASK, TSS, 0x67);
        cpu.ldtr.attributes = A::UNUSABLE;
        cpu.gpr[Cpu::RSP] = STACK;
        let mut machine = Self {
            cpu,
            memory,
            ports: Ports::default(),
        };
        // The task's map of ports begins where the task ends.
        machine.set_quad(TSS + 102, 0x68);
        let descriptors = [
            Segment::flat_code64(CODE64),
            Segment::flat_data(FLAT),
            Segment::flat_code32(CODE32),
            user(Segment::flat_code32(USER_CODE32)),
            user(Segment::flat_data(USER_DATA)),
            user(Segment::flat_code64(USER_CODE64)),
            machine.cpu.tr,
        ];
        for (at, descriptor) in (GDT + 8..).step_by(8).zip(descriptors) {
            machine.set_quad(at, descriptor.descriptor());
        }
        machine
    }

    /// The same machine executing a program: level 3, with interrupts on.
    pub(crate) fn at_level_3(mut self) -> Self {
        let code = match self.cpu.mode.bits {
            64 => Segment::flat_code64(USER_CODE64),
            _ => Segment::flat_code32(USER_CODE32),
        };
        self.cpu.segments = [user(Segment::flat_data(USER_DATA)); 6];
        self.cpu.set_segment(SegReg::Cs, user(code));
        self.cpu.set_rflags(0x202);
        self
    }

    /// The processor at work.
    pub(crate) fn exec(&mut self) -> Exec<'_> {
        Exec {
            cpu: &mut self.cpu,
            memory: &self.memory,
            io: &self.ports,
        }
    }

    /// Puts one instruction to where RIP is and executes it.
    pub(crate) fn run(&mut self, code: &[u8]) -> Result<(), Exception> {
        self.place(code);
        self.exec().run_instruction()
    }

    /// The same as the vCPU's loop does it while something is debugged.
    pub(crate) fn run_debugged(&mut self, code: &[u8]) -> Result<(), Exception> {
        self.place(code);
        self.exec().run_debugged()
    }

    /// Puts code to where RIP is.
    fn place(&mut self, code: &[u8]) {
        let at = self.cpu.segment(SegReg::Cs).base + self.cpu.rip;
        assert!(self.memory.ram().write(at, code));
        self.cpu.forget_code();
    }

    /// The number of `size` bytes at `at`.
    pub(crate) fn number(&self, at: u64, size: usize) -> u64 {
        self.memory.ram().load(at, size).unwrap()
    }

    pub(crate) fn set_quad(&mut self, at: u64, value: u64) {
        assert!(self.memory.ram().store(at, 8, value));
    }

    /// Numbers of `size` bytes from the stack pointer on.
    pub(crate) fn stack<const N: usize>(&self, size: usize) -> [u64; N] {
        let top = self.cpu.gpr[Cpu::RSP];
        std::array::from_fn(|index| self.number(top + (index * size) as u64, size))
    }

    /// Puts a gate of 16 bytes, or of eight, into the IDT: to [`HANDLER`] in `selector`.
    pub(crate) fn set_gate(&mut self, vector: u8, selector: u16, attributes: u64) {
        let long = self.cpu.long_mode();
        let size = if long { 16 } else { 8 };
        let at = IDT + u64::from(vector) * size;
        self.set_quad(at, gate(selector, attributes));
        if long {
            self.set_quad(at + 8, 0);
        }
    }

    /// The selector of CS, and the level the processor is at.
    pub(crate) fn place_and_level(&self) -> (u16, u64, u8) {
        (
            self.cpu.segment(SegReg::Cs).selector,
            self.cpu.rip,
            self.cpu.cpl(),
        )
    }
}

/// The lower eight bytes of a gate to [`HANDLER`]; `attributes` are bits 32 to 47 of it.
pub(crate) fn gate(selector: u16, attributes: u64) -> u64 {
    HANDLER | u64::from(selector) << 16 | attributes << 32
}

/// Attributes of a present interrupt gate of level 0, and of one that programs may use.
pub(crate) const INTERRUPT_GATE: u64 = 0x8e00;
pub(crate) const USER_GATE: u64 = 0xee00;

/// A segment of level 3.
pub(crate) fn user(segment: Segment) -> Segment {
    Segment {
        attributes: segment.attributes | A::DPL,
        ..segment
    }
}
