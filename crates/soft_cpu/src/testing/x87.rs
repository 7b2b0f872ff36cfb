//! A processor that executes x87, MMX and save instructions from bytes.

use guest_memory::GuestMemory;
use hypervisor::x86_64::{CpuidLeaf, Segment};
use iced_x86::{Decoder, DecoderOptions};

use super::{NoDevices, flat_cpu};
use crate::cpu::{Cpu, SegReg, control};
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::Memory;

/// Where code lies, and where tests keep their data.
pub(crate) const CODE: u64 = 0x1000;
pub(crate) const DATA: u64 = 0x4000;
const RAM: u64 = 0x1_0000;

/// A processor with 64 KiB of RAM, without paging. RDI is [`DATA`].
pub(crate) struct Bench {
    pub(crate) cpu: Box<Cpu>,
    memory: Memory,
}

impl Bench {
    /// In 64-bit mode, at privilege level 0, with x87, SSE and AVX state enabled.
    pub(crate) fn long() -> Self {
        let mut bench = Self::new(Segment::flat_code64(8));
        bench.cpu.efer = control::EFER_LMA | control::EFER_LME;
        bench.cpu.update_mode();
        bench
    }

    /// The same in 32-bit protected mode.
    pub(crate) fn protected() -> Self {
        Self::new(Segment::flat_code32(8))
    }

    fn new(code: Segment) -> Self {
        let leaf = |leaf, subleaf, eax, ebx, ecx| CpuidLeaf {
            leaf,
            subleaf: Some(subleaf),
            eax,
            ebx,
            ecx,
            edx: 0,
        };
        let leaves = vec![
            leaf(0xd, 0, 7, 832, 832),
            leaf(0xd, 1, 0xf, 832, 0),
            leaf(0xd, 2, 256, 576, 0),
        ];
        let mut cpu = flat_cpu(leaves, CODE);
        cpu.set_segment(SegReg::Cs, code);
        cpu.gpr[Cpu::RDI] = DATA;
        let ram = GuestMemory::anonymous(&[(0, RAM)]).unwrap();
        Self {
            cpu,
            memory: Memory::default().with(&ram, false),
        }
    }

    /// Executes instructions one after another, until one fails.
    pub(crate) fn run(&mut self, code: &[u8]) -> Result<(), Exception> {
        let bits = self.cpu.mode.bits.into();
        for instruction in &mut Decoder::with_ip(bits, code, CODE, DecoderOptions::NONE) {
            let handler = crate::x87::handler(&instruction).expect("an instruction of this group");
            self.cpu.rip = instruction.next_ip();
            let mut exec = Exec {
                cpu: &mut self.cpu,
                memory: &self.memory,
                io: &NoDevices,
            };
            handler(&mut exec, &instruction)?;
        }
        Ok(())
    }

    /// Puts code where [`Bench::run`] says that it is.
    pub(crate) fn set_code(&mut self, code: &[u8]) {
        assert!(self.memory.ram().write(CODE, code));
    }

    /// Bytes at `offset` behind [`DATA`].
    pub(crate) fn data(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.memory.ram().read(DATA + offset, &mut bytes));
        bytes
    }

    pub(crate) fn set_data(&mut self, offset: u64, bytes: &[u8]) {
        assert!(self.memory.ram().write(DATA + offset, bytes));
    }

    /// The 64-bit number at `offset` behind [`DATA`].
    pub(crate) fn quad(&self, offset: u64) -> u64 {
        u64::from_le_bytes(self.data(offset, 8).try_into().unwrap())
    }

    /// What the instructions that save are asked for, in EDX:EAX.
    pub(crate) fn request(&mut self, components: u64) {
        (self.cpu.gpr[Cpu::RAX], self.cpu.gpr[Cpu::RDX]) = (components & 0xffff_ffff, components >> 32);
    }
}
