//! Operands whose width is known when their handler is chosen.

use iced_x86::{Instruction, OpKind, Register};

use crate::cpu::Cpu;
use crate::exception::Exception;
use crate::exec::{Exec, mask};
use crate::memory::Access;

/// Picks the instance of a handler for operands of `$size` bytes: `by_size!(size, handler, [Types])`; `None` for
/// other sizes.
macro_rules! by_size {
    ($size:expr, $handler:ident $(, $parameter:tt)*) => {
        match $size {
            1 => Some($handler::<$($parameter,)* 1> as $crate::exec::Handler),
            2 => Some($handler::<$($parameter,)* 2> as $crate::exec::Handler),
            4 => Some($handler::<$($parameter,)* 4> as $crate::exec::Handler),
            8 => Some($handler::<$($parameter,)* 8> as $crate::exec::Handler),
            _ => None,
        }
    };
}

/// The same for instructions that have no form for bytes.
macro_rules! by_word_size {
    ($size:expr, $handler:ident $(, $parameter:tt)*) => {
        match $size {
            2 => Some($handler::<$($parameter,)* 2> as $crate::exec::Handler),
            4 => Some($handler::<$($parameter,)* 4> as $crate::exec::Handler),
            8 => Some($handler::<$($parameter,)* 8> as $crate::exec::Handler),
            _ => None,
        }
    };
}

/// The same for instructions on doublewords and quadwords alone.
macro_rules! by_wide_size {
    ($size:expr, $handler:ident $(, $parameter:tt)*) => {
        match $size {
            4 => Some($handler::<$($parameter,)* 4> as $crate::exec::Handler),
            8 => Some($handler::<$($parameter,)* 8> as $crate::exec::Handler),
            _ => None,
        }
    };
}

pub(super) use {by_size, by_wide_size, by_word_size};

/// Width in bytes of operand `index`; 0 where it is neither a general register nor memory nor an immediate.
pub(super) fn size_of(instruction: &Instruction, index: u32) -> usize {
    match instruction.op_kind(index) {
        OpKind::Register if instruction.op_register(index).is_gpr() => instruction.op_register(index).size(),
        OpKind::Register => 0,
        OpKind::Memory => instruction.memory_size().size(),
        OpKind::Immediate8 => 1,
        OpKind::Immediate16 | OpKind::Immediate8to16 | OpKind::NearBranch16 => 2,
        OpKind::Immediate32 | OpKind::Immediate8to32 | OpKind::NearBranch32 => 4,
        OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::NearBranch64 => 8,
        _ => 0,
    }
}

/// Whether operand `index` is a register.
pub(super) fn is_register(instruction: &Instruction, index: u32) -> bool {
    instruction.op_kind(index) == OpKind::Register
}

/// The immediate that is operand 1, extended to `S` bytes with its sign.
#[inline]
pub(super) fn immediate<const S: usize>(instruction: &Instruction) -> u64 {
    let value = match instruction.op1_kind() {
        OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64 => {
            instruction.immediate8to64() as u64
        }
        OpKind::Immediate64 => instruction.immediate64(),
        _ => instruction.immediate32to64() as u64,
    };
    value & mask(S)
}

/// Position of `register` among the 16 names of its size, of which `first` is the first.
#[inline]
fn position(register: Register, first: Register) -> usize {
    (register as usize).wrapping_sub(first as usize) & 15
}

impl Exec<'_> {
    /// The value of a general register of `S` bytes.
    #[inline]
    pub(super) fn register<const S: usize>(&self, register: Register) -> u64 {
        let gpr = &self.cpu.gpr;
        match S {
            8 => gpr[position(register, Register::RAX)],
            4 => gpr[position(register, Register::EAX)] & 0xffff_ffff,
            2 => gpr[position(register, Register::AX)] & 0xffff,
            _ => self.gpr(register),
        }
    }

    /// Writes a general register of `S` bytes as its width demands.
    #[inline]
    pub(super) fn set_register<const S: usize>(&mut self, register: Register, value: u64) {
        match S {
            8 => self.set_number::<8>(position(register, Register::RAX), value),
            4 => self.set_number::<4>(position(register, Register::EAX), value),
            2 => self.set_number::<2>(position(register, Register::AX), value),
            _ => self.set_gpr(register, value),
        }
    }

    /// The low `S` bytes of the general register `number`.
    #[inline]
    pub(super) fn number<const S: usize>(&self, number: usize) -> u64 {
        self.cpu.gpr[number] & mask(S)
    }

    /// Writes the low `S` bytes of the general register `number`: 4 clear the upper half, 1 and 2 keep the rest.
    #[inline]
    pub(super) fn set_number<const S: usize>(&mut self, number: usize, value: u64) {
        let slot = &mut self.cpu.gpr[number];
        *slot = match S {
            8 => value,
            4 => value & 0xffff_ffff,
            _ => *slot & !mask(S) | value & mask(S),
        };
    }

    /// RAX, EAX, AX or AL.
    #[inline]
    pub(super) fn accumulator<const S: usize>(&self) -> u64 {
        self.number::<S>(Cpu::RAX)
    }

    /// Loads `S` bytes from the memory operand.
    #[inline]
    pub(super) fn load_operand<const S: usize>(
        &mut self,
        instruction: &Instruction,
    ) -> Result<u64, Exception> {
        let (segment, offset) = self.effective_address(instruction);
        self.load(segment, offset, S)
    }

    /// Stores `S` bytes to the memory operand.
    #[inline]
    pub(super) fn store_operand<const S: usize>(
        &mut self,
        instruction: &Instruction,
        value: u64,
    ) -> Result<(), Exception> {
        let (segment, offset) = self.effective_address(instruction);
        self.store(segment, offset, S, value)
    }

    /// Reads, changes and writes the `S` bytes of the memory operand, see [`Exec::linear_update`].
    #[inline]
    pub(super) fn update_operand<const S: usize>(
        &mut self,
        instruction: &Instruction,
        locked: bool,
        change: impl FnMut(u64) -> u64,
    ) -> Result<(u64, u64), Exception> {
        let (segment, offset) = self.effective_address(instruction);
        let linear = self.linear(segment, offset, S as u64, Access::Write)?;
        self.linear_update(self.cpu.mode.set, linear, S, locked, change)
    }

    /// Reads operand `index`, a general register or memory of `S` bytes.
    #[inline]
    pub(super) fn read_sized<const S: usize>(
        &mut self,
        instruction: &Instruction,
        index: u32,
    ) -> Result<u64, Exception> {
        if instruction.op_kind(index) == OpKind::Register {
            Ok(self.register::<S>(instruction.op_register(index)))
        } else {
            self.load_operand::<S>(instruction)
        }
    }

    /// Reads, changes and writes operand 0, a general register or memory of `S` bytes; as one step with a LOCK
    /// prefix. Gives back what was there.
    #[inline]
    pub(super) fn update_sized<const S: usize>(
        &mut self,
        instruction: &Instruction,
        mut change: impl FnMut(u64) -> u64,
    ) -> Result<u64, Exception> {
        if instruction.op0_kind() == OpKind::Register {
            let old = self.register::<S>(instruction.op0_register());
            self.set_register::<S>(instruction.op0_register(), change(old));
            return Ok(old);
        }
        let (old, _) = self.update_operand::<S>(instruction, instruction.has_lock_prefix(), change)?;
        Ok(old)
    }
}
