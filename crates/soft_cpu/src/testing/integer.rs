//! A processor with memory that executes general instructions from bytes.

use std::sync::Arc;

use guest_memory::{GuestMemory, WriteObserver};
use hypervisor::x86_64::{CpuidLeaf, Segment, SegmentAttributes};

use super::{NoDevices, flat_cpu};
use crate::cpu::{Cpu, SegReg, control, flags};
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::Memory;

/// Where code, data and the stack lie. There is RAM for 64 KiB from each on.
pub(crate) const CODE: u64 = 0x1_0000;
pub(crate) const DATA: u64 = 0x1000_0000;
pub(crate) const STACK: u64 = 0x2000_0000;
/// Where the first instruction lies.
pub(crate) const START: u64 = CODE + 0x800;
/// Where the stack pointer begins.
pub(crate) const TOP: u64 = STACK + 0x8000;

/// Pages can be watched where somebody is told. There are no devices that write.
struct Nobody;

impl WriteObserver for Nobody {
    fn page_written(&self, _gpa: u64) {}
}

/// A processor and its memory, without paging.
pub(crate) struct Machine {
    pub(crate) cpu: Box<Cpu>,
    memory: Memory,
}

impl Machine {
    /// 16-, 32- or 64-bit code with flat segments at privilege level 0, all instructions there.
    pub(crate) fn new(bits: u8) -> Self {
        let ram = GuestMemory::anonymous(&[(CODE, 0x1_0000), (DATA, 0x1_0000), (STACK, 0x1_0000)]).unwrap();
        let nobody: Arc<dyn WriteObserver> = Arc::new(Nobody);
        ram.observe_writes(&nobody);
        let mut machine = Self {
            cpu: flat_cpu(leaves(), START),
            memory: Memory::default().with(&ram, false),
        };
        let mut code = Segment::flat_code32(8);
        match bits {
            16 => {
                code.attributes.remove(SegmentAttributes::BIG);
                (code.base, code.limit) = (CODE, 0xffff);
            }
            64 => {
                code = Segment::flat_code64(8);
                machine.cpu.efer = control::EFER_LMA | control::EFER_LME;
            }
            _ => {}
        }
        machine.cpu.set_segment(SegReg::Cs, code);
        machine.cpu.gpr[Cpu::RSP] = TOP;
        machine
    }

    /// Everything that reaches guest code.
    pub(crate) fn exec(&mut self) -> Exec<'_> {
        Exec {
            cpu: &mut self.cpu,
            memory: &self.memory,
            io: &NoDevices,
        }
    }

    /// Executes the one instruction `code`, at [`START`].
    pub(crate) fn run(&mut self, code: &[u8]) -> Result<(), Exception> {
        self.set_bytes(START, &[0x90; 32]);
        self.set_bytes(START, code);
        self.cpu.forget_code();
        self.cpu.rip = self.start();
        self.exec().run_instruction()
    }

    /// Executes it until it does not come back to itself, as a repeated string instruction does; says how often.
    pub(crate) fn run_whole(&mut self, code: &[u8]) -> Result<usize, Exception> {
        self.run(code)?;
        let mut times = 1;
        while self.cpu.rip == self.start() {
            self.exec().run_instruction()?;
            times += 1;
        }
        Ok(times)
    }

    /// What RIP is at [`START`].
    pub(crate) fn start(&self) -> u64 {
        START - self.cpu.segment(SegReg::Cs).base
    }

    /// How many bytes RIP is behind [`START`].
    pub(crate) fn passed(&self) -> u64 {
        self.cpu.rip.wrapping_sub(self.start())
    }

    /// Makes the code run at privilege level 3.
    pub(crate) fn set_user(&mut self) {
        let mut stack = *self.cpu.segment(SegReg::Ss);
        stack.attributes.insert(SegmentAttributes::DPL);
        self.cpu.set_segment(SegReg::Ss, stack);
    }

    /// Turns on paging of 32-bit code: the RAM maps to itself, but for the page at `missing`.
    pub(crate) fn page_without(&mut self, missing: u64) {
        const PRESENT_WRITABLE_USER: u64 = 7;
        let directory = CODE + 0x8000;
        for (table, region) in (directory + 0x1000..).step_by(0x1000).zip([CODE, DATA, STACK]) {
            self.set_bytes(
                directory + (region >> 22) * 4,
                &entry(table | PRESENT_WRITABLE_USER),
            );
            for page in (region..region + 0x1_0000).step_by(0x1000) {
                let present = if page == missing { 0 } else { PRESENT_WRITABLE_USER };
                self.set_bytes(table + (page >> 12 & 0x3ff) * 4, &entry(page | present));
            }
        }
        self.cpu.cr3 = directory;
        self.cpu.cr0 |= control::CR0_PG | control::CR0_WP;
        self.cpu.tlb.flush(false);
    }

    /// Sets general registers by their numbers.
    pub(crate) fn set_gprs(&mut self, values: &[(usize, u64)]) {
        for (number, value) in values {
            self.cpu.gpr[*number] = *value;
        }
    }

    /// The six status flags.
    pub(crate) fn status(&self) -> u64 {
        self.cpu.rflags & flags::STATUS
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

/// An entry of a page table.
fn entry(value: u64) -> [u8; 4] {
    (value as u32).to_le_bytes()
}

/// CPUID leaves that promise everything.
fn leaves() -> Vec<CpuidLeaf> {
    let leaf = |leaf, subleaf| CpuidLeaf {
        leaf,
        subleaf,
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
    };
    vec![leaf(1, None), leaf(7, Some(0)), leaf(0x8000_0001, None)]
}
