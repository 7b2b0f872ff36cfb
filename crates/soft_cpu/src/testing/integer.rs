//! A processor with memory that executes general instructions from bytes.

use std::sync::Arc;

use guest_memory::GuestMemory;
use hypervisor::GuestIo;
use hypervisor::x86_64::{Activity, CpuidLeaf, Segment, SegmentAttributes};

use crate::cpu::{Cpu, Features, Mode, SegReg, control};
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::{Memory, Tlb};

/// Where code, data and the stack lie. There is RAM for 64 KiB from each on.
pub(crate) const CODE: u64 = 0;
pub(crate) const DATA: u64 = 0x1000_0000;
pub(crate) const STACK: u64 = 0x2000_0000;
/// Where the first instruction lies.
pub(crate) const START: u64 = CODE + 0x1000;
/// Where the stack pointer begins.
pub(crate) const TOP: u64 = STACK + 0x8000;

/// A machine without devices.
struct Nothing;

impl GuestIo for Nothing {
    fn mmio_read(&self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}
    fn port_read(&self, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn port_write(&self, _port: u16, _data: &[u8]) {}
    fn eoi(&self, _vector: u8) {}
}

/// A processor and its memory, without paging.
pub(crate) struct Machine {
    pub(crate) cpu: Box<Cpu>,
    memory: Memory,
}

impl Machine {
    /// 16-, 32- or 64-bit code with flat segments at privilege level 0, all instructions there.
    pub(crate) fn new(bits: u8) -> Self {
        let mut machine = Self {
            cpu: cpu(),
            memory: Memory::default().with(
                &GuestMemory::anonymous(&[(CODE, 0x1_0000), (DATA, 0x1_0000), (STACK, 0x1_0000)]).unwrap(),
                false,
            ),
        };
        let mut code = Segment::flat_code32(8);
        match bits {
            16 => {
                code.attributes.remove(SegmentAttributes::BIG);
                code.limit = 0xffff;
            }
            64 => {
                code = Segment::flat_code64(8);
                machine.cpu.efer = control::EFER_LMA | control::EFER_LME;
            }
            _ => {}
        }
        machine.cpu.set_segment(SegReg::Cs, code);
        machine
    }

    /// Everything that reaches guest code.
    pub(crate) fn exec(&mut self) -> Exec<'_> {
        Exec {
            cpu: &mut self.cpu,
            memory: &self.memory,
            io: &Nothing,
        }
    }

    /// Executes the one instruction `code`, at [`START`].
    pub(crate) fn run(&mut self, code: &[u8]) -> Result<(), Exception> {
        self.set_bytes(START, &[0x90; 32]);
        self.set_bytes(START, code);
        self.cpu.blocks.clear();
        self.cpu.rip = START;
        self.exec().run_instruction()
    }

    /// Executes it as often as it asks for, as a repeated string instruction may.
    pub(crate) fn run_whole(&mut self, code: &[u8]) -> Result<(), Exception> {
        self.run(code)?;
        while self.cpu.rip == START {
            self.exec().run_instruction()?;
        }
        Ok(())
    }

    pub(crate) fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.memory.ram().read(gpa, &mut bytes));
        bytes
    }

    pub(crate) fn set_bytes(&mut self, gpa: u64, bytes: &[u8]) {
        assert!(self.memory.ram().write(gpa, bytes));
    }

    /// The 64-bit number at `gpa`.
    pub(crate) fn quad(&self, gpa: u64) -> u64 {
        self.memory.ram().load(gpa, 8).unwrap()
    }

    pub(crate) fn set_quad(&mut self, gpa: u64, value: u64) {
        assert!(self.memory.ram().store(gpa, 8, value));
    }
}

/// A processor to which CPUID promises everything.
fn cpu() -> Box<Cpu> {
    let leaf = |leaf, subleaf| CpuidLeaf {
        leaf,
        subleaf,
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
    };
    let leaves = vec![leaf(1, None), leaf(7, Some(0)), leaf(0x8000_0001, None)];
    let mut gpr = [0; 16];
    gpr[Cpu::RSP] = TOP;
    Box::new(Cpu {
        gpr,
        rip: START,
        rflags: 2,
        vector: Default::default(),
        x87: Default::default(),
        tlb: Tlb::new(),
        mode: Mode::RESET,
        segments: [Segment::flat_data(0x10); 6],
        ldtr: Default::default(),
        tr: Default::default(),
        gdtr: Default::default(),
        idtr: Default::default(),
        cr0: control::CR0_PE | control::CR0_NE | control::CR0_ET,
        cr2: 0,
        cr3: 0,
        cr4: 0,
        efer: 0,
        xcr0: 1,
        debug: Default::default(),
        msrs: Default::default(),
        activity: Activity::Running,
        events: Default::default(),
        apic: Arc::default(),
        features: Features::of(&leaves),
        cpuid: leaves,
        blocks: Default::default(),
    })
}
