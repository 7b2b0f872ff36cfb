//! What vector instructions ask before anything else, and where their operands are.

use iced_x86::{EncodingKind, Instruction, OpKind, Register};

use super::Ymm;
use crate::cpu::{SegReg, control, flags};
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::Access;

/// The 256 bits of a register; of narrower values the lowest.
pub(super) type Vector = [u64; 4];

/// How an instruction is encoded and how wide its vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Three operands, no alignment, and what lies above the result is cleared.
    pub(super) vex: bool,
    /// 256 bits instead of 128.
    pub(super) wide: bool,
}

impl Shape {
    /// Width of a vector in 64-bit chunks.
    #[inline]
    pub(super) fn chunks(self) -> usize {
        if self.wide { 4 } else { 2 }
    }

    /// Width of a vector in bytes.
    #[inline]
    pub(super) fn size(self) -> usize {
        self.chunks() * 8
    }

    /// Which operand is the first source: the destination itself where there are only two.
    #[inline]
    pub(super) fn first(self) -> u32 {
        u32::from(self.vex)
    }

    /// Which operand is the second source.
    #[inline]
    pub(super) fn second(self) -> u32 {
        self.first() + 1
    }
}

/// SSE and AVX state in XCR0.
const AVX_STATE: u64 = 6;

/// The number of a vector register.
#[inline]
pub(super) fn number(register: Register) -> usize {
    (register as usize).wrapping_sub(Register::XMM0 as usize) & 15
}

/// The lanes of one half, as one number.
#[inline]
pub(super) fn lane(value: &Vector, index: usize) -> u128 {
    u128::from(value[index * 2]) | u128::from(value[index * 2 + 1]) << 64
}

#[inline]
pub(super) fn set_lane(value: &mut Vector, index: usize, lane: u128) {
    (value[index * 2], value[index * 2 + 1]) = (lane as u64, (lane >> 64) as u64);
}

/// 128 bits as the low half of a vector.
#[inline]
pub(super) fn low(lane: u128) -> Vector {
    [lane as u64, (lane >> 64) as u64, 0, 0]
}

impl Exec<'_> {
    /// Raises what keeps vector instructions from being executed at all (Intel SDM vol. 2, 2.4 and 2.5; vol. 3,
    /// 2.5 and 13.1), and tells the instruction's shape.
    #[inline]
    pub(super) fn shape(&self, instruction: &Instruction) -> Result<Shape, Exception> {
        let vex = instruction.encoding() == EncodingKind::VEX;
        self.check_vector_state(vex)?;
        Ok(Shape {
            vex,
            wide: vex && is_wide(instruction),
        })
    }

    /// Raises what keeps vector instructions of this encoding from being executed.
    #[inline]
    pub(super) fn check_vector_state(&self, vex: bool) -> Result<(), Exception> {
        let cpu = &*self.cpu;
        let exists = if vex {
            let protected = cpu.cr0 & control::CR0_PE != 0 && cpu.rflags & flags::VM == 0;
            protected && cpu.cr4 & control::CR4_OSXSAVE != 0 && cpu.xcr0 & AVX_STATE == AVX_STATE
        } else {
            cpu.cr0 & control::CR0_EM == 0 && cpu.cr4 & control::CR4_OSFXSR != 0
        };
        if !exists {
            return Err(Exception::UNDEFINED);
        }
        if cpu.cr0 & control::CR0_TS != 0 {
            return Err(Exception::NO_MATH);
        }
        Ok(())
    }

    /// A vector register.
    #[inline]
    pub(super) fn vector(&self, register: Register) -> Vector {
        self.cpu.vector.registers[number(register)].0
    }

    /// Writes a vector register: VEX encodings clear what lies above the result, others keep it (Intel SDM
    /// vol. 1, 14.1.3).
    #[inline]
    pub(super) fn set_vector(&mut self, register: Register, value: Vector, shape: Shape) {
        let slot = &mut self.cpu.vector.registers[number(register)].0;
        (slot[0], slot[1]) = (value[0], value[1]);
        if shape.wide {
            (slot[2], slot[3]) = (value[2], value[3]);
        } else if shape.vex {
            (slot[2], slot[3]) = (0, 0);
        }
    }

    /// Operand `index`, a register or memory of a whole vector, which must be aligned where the encoding says so.
    #[inline]
    pub(super) fn vector_operand(
        &mut self,
        instruction: &Instruction,
        index: u32,
        shape: Shape,
    ) -> Result<Vector, Exception> {
        if instruction.op_kind(index) == OpKind::Register {
            return Ok(self.vector(instruction.op_register(index)));
        }
        self.vector_load(instruction, shape.size(), !shape.vex)
    }

    /// Operand `index`, a register or `size` bytes of memory, at any address.
    #[inline]
    pub(super) fn narrow_operand(
        &mut self,
        instruction: &Instruction,
        index: u32,
        size: usize,
    ) -> Result<Vector, Exception> {
        if instruction.op_kind(index) == OpKind::Register {
            return Ok(self.vector(instruction.op_register(index)));
        }
        if size > 8 {
            return self.vector_load(instruction, size, false);
        }
        let (segment, offset) = self.effective_address(instruction);
        Ok([self.load(segment, offset, size)?, 0, 0, 0])
    }

    /// The two sources of an instruction on whole vectors.
    #[inline]
    pub(super) fn sources(
        &mut self,
        instruction: &Instruction,
        shape: Shape,
    ) -> Result<(Vector, Vector), Exception> {
        let second = self.vector_operand(instruction, shape.second(), shape)?;
        Ok((self.vector(instruction.op_register(shape.first())), second))
    }

    /// Where the memory operand is; #GP where it must be aligned to its size and is not.
    #[inline]
    fn vector_address(
        &self,
        instruction: &Instruction,
        size: usize,
        aligned: bool,
        access: Access,
    ) -> Result<u64, Exception> {
        let (segment, offset) = self.effective_address(instruction);
        let misaligned = |address: u64| aligned && !address.is_multiple_of(size as u64);
        let linear = match self.linear(segment, offset, size as u64, access) {
            // Alignment comes before what is wrong with the stack's addresses: seen on Zen.
            Err(_) if misaligned(offset) => return Err(Exception::PROTECTION),
            linear => linear?,
        };
        if misaligned(linear) {
            return Err(Exception::PROTECTION);
        }
        Ok(linear)
    }

    /// Loads `size` bytes (at most 32) from the memory operand.
    #[inline]
    pub(super) fn vector_load(
        &mut self,
        instruction: &Instruction,
        size: usize,
        aligned: bool,
    ) -> Result<Vector, Exception> {
        let linear = self.vector_address(instruction, size, aligned, Access::Read)?;
        let mut bytes = [0; 32];
        self.linear_read(self.cpu.mode.set, linear, &mut bytes[..size])?;
        Ok(from_bytes(&bytes))
    }

    /// Stores the low `size` bytes (at most 32) to the memory operand.
    #[inline]
    pub(super) fn vector_store(
        &mut self,
        instruction: &Instruction,
        value: &Vector,
        size: usize,
        aligned: bool,
    ) -> Result<(), Exception> {
        let linear = self.vector_address(instruction, size, aligned, Access::Write)?;
        self.linear_write(self.cpu.mode.set, linear, &to_bytes(value)[..size])
    }

    /// Stores the low 1, 2, 4 or 8 bytes of `value` to the memory operand.
    #[inline]
    pub(super) fn chunk_store(
        &mut self,
        instruction: &Instruction,
        value: u64,
        size: usize,
    ) -> Result<(), Exception> {
        let (segment, offset) = self.effective_address(instruction);
        self.store(segment, offset, size, value)
    }

    /// Segment and offset of the operand at (R)DI, of `MASKMOVDQU` and its like.
    pub(super) fn string_address(&self, instruction: &Instruction) -> (SegReg, u64) {
        let register = match instruction.op0_kind() {
            OpKind::MemorySegDI => Register::DI,
            OpKind::MemorySegEDI => Register::EDI,
            _ => Register::RDI,
        };
        let segment = crate::exec::segment_register(instruction.memory_segment());
        (segment, self.gpr(register))
    }
}

/// Whether some operand of a VEX encoding has 256 bits.
#[inline]
fn is_wide(instruction: &Instruction) -> bool {
    let wide = |index: u32| match instruction.op_kind(index) {
        OpKind::Register => instruction.op_register(index).is_ymm(),
        OpKind::Memory => instruction.memory_size().size() == 32,
        _ => false,
    };
    instruction.op_count() > 1 && (wide(0) || wide(1))
}

#[inline]
pub(super) fn from_bytes(bytes: &[u8; 32]) -> Vector {
    let mut value = [0; 4];
    for (chunk, bytes) in value.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *chunk = u64::from_le_bytes(*bytes);
    }
    value
}

#[inline]
pub(super) fn to_bytes(value: &Vector) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (chunk, bytes) in value.iter().zip(bytes.as_chunks_mut::<8>().0) {
        *bytes = chunk.to_le_bytes();
    }
    bytes
}

impl Ymm {
    /// With nothing in it.
    pub(super) const ZERO: Self = Self([0; 4]);
}
