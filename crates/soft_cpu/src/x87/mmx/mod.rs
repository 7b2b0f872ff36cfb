//! MMX, and the instructions of SSE that touch MMX registers (Intel SDM vol. 1, chapter 9).

mod convert;
mod lanes;
mod packed;
mod transfer;

use iced_x86::{Instruction, OpKind, Register};

use super::X87;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    packed::handler(instruction)
        .or_else(|| transfer::handler(instruction))
        .or_else(|| convert::handler(instruction))
}

impl X87 {
    /// What every MMX instruction does to the rest of the x87: physical register 0 becomes the top, and all are
    /// in use (Intel SDM vol. 1, 9.5.1).
    fn enter_mmx(&mut self) {
        self.turn_to(0);
        self.tags = 0xff;
    }

    /// MM`index`. Only valid in the state that [`X87::enter_mmx`] makes, which [`mm`] does not need.
    fn set_mm(&mut self, index: usize, value: u64) {
        // As an x87 register it is a NaN or infinity, negative.
        self.registers[index & 7] = 0xffff << 64 | u128::from(value);
    }

    /// MM`index`, a physical register wherever the top is.
    fn mm(&self, index: usize) -> u64 {
        self.registers[index.wrapping_sub(self.top()) & 7] as u64
    }
}

/// Number of an MMX register; 0 where `register` is none.
fn mm(register: Register) -> usize {
    if register.is_mm() { register.number() } else { 0 }
}

impl Exec<'_> {
    /// Reads operand `index`: an MMX register, memory of up to 8 bytes, or an immediate.
    fn read_mm(&mut self, instruction: &Instruction, index: u32) -> Result<u64, Exception> {
        if instruction.op_kind(index) == OpKind::Register && instruction.op_register(index).is_mm() {
            return Ok(self.cpu.x87.mm(mm(instruction.op_register(index))));
        }
        self.read(instruction, index)
    }

    /// Ends an instruction whose result goes to the MMX register that is operand 0.
    fn finish_mm(&mut self, instruction: &Instruction, value: u64) {
        self.cpu.x87.enter_mmx();
        self.cpu.x87.set_mm(mm(instruction.op_register(0)), value);
    }
}
