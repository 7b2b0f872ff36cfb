//! Operands in memory, and the pointers that tell where the x87 was (Intel SDM vol. 1, 8.1.8 and 8.1.9).

use iced_x86::{Instruction, OpKind};

use super::float::{Float, Width, from_decimal, from_integer, from_memory};
use crate::cpu::SegReg;
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::PAGE_SIZE;

/// A type that memory operands have: reads one as a number, and says whether it is denormal.
pub(super) trait Operand {
    fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(Float, bool), Exception>;
}

pub(super) struct Single;
pub(super) struct Double;
pub(super) struct Extended;
pub(super) struct Word;
pub(super) struct DoubleWord;
pub(super) struct QuadWord;
pub(super) struct Decimal;

impl Operand for Single {
    fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(Float, bool), Exception> {
        Ok(from_memory(exec.read(instruction, 0)?, Width::Single))
    }
}

impl Operand for Double {
    fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(Float, bool), Exception> {
        Ok(from_memory(exec.read(instruction, 0)?, Width::Double))
    }
}

impl Operand for Word {
    fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(Float, bool), Exception> {
        let value = exec.read(instruction, 0)? as i16;
        Ok((from_integer(value.into()), false))
    }
}

impl Operand for DoubleWord {
    fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(Float, bool), Exception> {
        let value = exec.read(instruction, 0)? as i32;
        Ok((from_integer(value.into()), false))
    }
}

impl Operand for QuadWord {
    fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(Float, bool), Exception> {
        Ok((from_integer(exec.read(instruction, 0)? as i64), false))
    }
}

impl Operand for Extended {
    fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(Float, bool), Exception> {
        Ok((Float::from_bits(load_80(exec, instruction)?), false))
    }
}

impl Operand for Decimal {
    fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(Float, bool), Exception> {
        Ok((from_decimal(load_80(exec, instruction)?), false))
    }
}

fn load_80(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<u128, Exception> {
    let (segment, offset) = exec.effective_address(instruction);
    let mut bytes = [0; 16];
    exec.read_bytes(segment, offset, &mut bytes[..10])?;
    Ok(u128::from_le_bytes(bytes))
}

/// Writes the low 80 bits.
pub(super) fn store_80(exec: &mut Exec<'_>, instruction: &Instruction, value: u128) -> Result<(), Exception> {
    let (segment, offset) = exec.effective_address(instruction);
    exec.write_bytes(segment, offset, &value.to_le_bytes()[..10])
}

impl Exec<'_> {
    /// Notes where the x87 is. Control instructions do not.
    pub(super) fn note(&mut self, instruction: &Instruction) {
        let opcode = self.escape_opcode(instruction);
        let code_selector = self.cpu.segment(SegReg::Cs).selector;
        let has_memory = instruction.op_count() != 0
            && (0..instruction.op_count()).any(|index| instruction.op_kind(index) == OpKind::Memory);
        if has_memory {
            let (segment, offset) = self.effective_address(instruction);
            self.cpu.x87.data_pointer = offset;
            self.cpu.x87.data_selector = self.cpu.segment(segment).selector;
        }
        let x87 = &mut self.cpu.x87;
        x87.instruction_pointer = instruction.ip();
        x87.code_selector = code_selector;
        x87.opcode = opcode;
    }

    /// The low three bits of the first opcode byte and the byte after it. A decoded instruction does not have them,
    /// so they are looked up where it came from.
    fn escape_opcode(&mut self, instruction: &Instruction) -> u16 {
        let mut bytes = [0; 15];
        let bytes = &mut bytes[..instruction.len().min(15)];
        let start = self.cpu.segment(SegReg::Cs).base.wrapping_add(instruction.ip());
        let in_page = ((PAGE_SIZE - start % PAGE_SIZE) as usize).min(bytes.len());
        let (head, tail) = bytes.split_at_mut(in_page);
        for (part, at) in [(head, start), (tail, start.wrapping_add(in_page as u64))] {
            if let Ok(gpa) = self.translate_code(at) {
                self.memory.ram().read(gpa, part);
            }
        }
        let escape = bytes.windows(2).find(|pair| pair[0] & 0xf8 == 0xd8);
        escape.map_or(0, |pair| u16::from(pair[0] & 7) << 8 | u16::from(pair[1]))
    }
}
