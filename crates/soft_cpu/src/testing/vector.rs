//! A processor that executes vector instructions from bytes.

use guest_memory::GuestMemory;
use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::{NoDevices, flat_cpu64};
use crate::cpu::Cpu;
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::Memory;

/// Where code lies, and where tests keep their data.
const CODE: u64 = 0x1000;
pub(crate) const DATA: u64 = 0x4000;
const RAM: u64 = 0x20_0000;

/// A processor in 64-bit mode at privilege level 0, with SSE and AVX state enabled and without paging. RDI is
/// [`DATA`].
pub(crate) struct Bench {
    pub(crate) cpu: Box<Cpu>,
    memory: Memory,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let mut cpu = flat_cpu64(Vec::new(), CODE);
        cpu.gpr[Cpu::RDI] = DATA;
        let ram = GuestMemory::anonymous(&[(0, RAM)]).unwrap();
        Self {
            cpu,
            memory: Memory::default().with(&ram, false),
        }
    }

    /// Executes one instruction.
    pub(crate) fn execute(&mut self, instruction: &Instruction) -> Result<(), Exception> {
        let handler = crate::vector::handler(instruction).expect("an instruction of this group");
        self.cpu.rip = instruction.next_ip();
        let mut exec = Exec {
            cpu: &mut self.cpu,
            memory: &self.memory,
            io: &NoDevices,
        };
        handler(&mut exec, instruction)
    }

    /// Executes instructions one after another, until one fails.
    pub(crate) fn run(&mut self, code: &[u8]) -> Result<(), Exception> {
        let bits = self.cpu.mode.bits.into();
        let decoder = Decoder::with_ip(bits, code, CODE, DecoderOptions::NONE);
        decoder
            .into_iter()
            .try_for_each(|instruction| self.execute(&instruction))
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
}
