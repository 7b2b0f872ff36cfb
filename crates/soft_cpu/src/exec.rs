//! A vCPU at work: its registers, the VM's memory and the machine around it, and what instructions do with
//! operands.

use hypervisor::GuestIo;
use iced_x86::{Instruction, OpKind, Register};

use crate::cpu::{Cpu, Mode, SegReg};
use crate::exception::Exception;
use crate::memory::{Access, Memory};

/// Everything an instruction can reach.
pub(crate) struct Exec<'a> {
    pub(crate) cpu: &'a mut Cpu,
    pub(crate) memory: &'a Memory,
    pub(crate) io: &'a dyn GuestIo,
}

/// Executes one instruction.
///
/// On entry [`Cpu::rip`] is the address of the next instruction; control transfers change it. On an error the
/// caller puts RIP back to the instruction (unless the exception is a trap): a handler changes no register, no
/// flag and no memory before the last thing that can fail. String instructions commit each element.
pub(crate) type Handler = fn(&mut Exec<'_>, &Instruction) -> Result<(), Exception>;

/// The handler of an instruction that exists in no profile.
pub(crate) fn undefined(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.tell_undefined(instruction);
    Err(Exception::UNDEFINED)
}

/// A general register as an operand names it: number, width in bytes, and whether it is one of AH, CH, DH, BH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GprOperand {
    pub(crate) number: usize,
    pub(crate) size: usize,
    pub(crate) high: bool,
}

impl GprOperand {
    /// `None` where `register` is no general register.
    #[inline]
    pub(crate) fn of(register: Register) -> Option<Self> {
        // iced lists AL to BL, AH to BH, SPL to DIL, R8L to R15L, then 16 names of each wider size.
        let index = (register as usize).wrapping_sub(Register::AL as usize);
        let (number, size, high) = match index {
            0..4 => (index, 1, false),
            4..8 => (index - 4, 1, true),
            8..20 => (index - 4, 1, false),
            20..36 => (index - 20, 2, false),
            36..52 => (index - 36, 4, false),
            52..68 => (index - 52, 8, false),
            _ => return None,
        };
        Some(Self { number, size, high })
    }
}

/// The low `size` bytes (1, 2, 4 or 8) of a number set.
#[inline]
pub(crate) fn mask(size: usize) -> u64 {
    u64::MAX >> (64 - size * 8)
}

/// The low `size` bytes of `value`, with their sign.
#[inline]
pub(crate) fn sign_extend(value: u64, size: usize) -> u64 {
    let shift = 64 - size * 8;
    ((value << shift) as i64 >> shift) as u64
}

impl Exec<'_> {
    /// A general register's value, zero-extended.
    #[inline]
    pub(crate) fn gpr(&self, register: Register) -> u64 {
        match GprOperand::of(register) {
            Some(operand) => {
                let value = self.cpu.gpr[operand.number];
                (if operand.high { value >> 8 } else { value }) & mask(operand.size)
            }
            None => 0,
        }
    }

    /// Writes a general register as its width demands: 32 bits clear the upper half, 8 and 16 keep the rest.
    #[inline]
    pub(crate) fn set_gpr(&mut self, register: Register, value: u64) {
        if let Some(operand) = GprOperand::of(register) {
            self.set_gpr_operand(operand, value);
        }
    }

    #[inline]
    pub(crate) fn set_gpr_operand(&mut self, operand: GprOperand, value: u64) {
        let slot = &mut self.cpu.gpr[operand.number];
        *slot = match (operand.size, operand.high) {
            (8, _) => value,
            (4, _) => value & 0xffff_ffff,
            (1, true) => *slot & !0xff00 | (value & 0xff) << 8,
            (size, _) => *slot & !mask(size) | value & mask(size),
        };
    }

    /// Width in bytes of operand `index`.
    #[inline]
    pub(crate) fn operand_size(&self, instruction: &Instruction, index: u32) -> usize {
        match instruction.op_kind(index) {
            OpKind::Register => instruction.op_register(index).size(),
            OpKind::Immediate8 => 1,
            OpKind::Immediate16 | OpKind::Immediate8to16 => 2,
            OpKind::Immediate32 | OpKind::Immediate8to32 => 4,
            OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => 8,
            _ => instruction.memory_size().size(),
        }
    }

    /// Segment and offset of the memory operand.
    #[inline]
    pub(crate) fn effective_address(&self, instruction: &Instruction) -> (SegReg, u64) {
        let segment = match instruction.segment_prefix() {
            // Ignored: what a bad address raises depends on the base register alone (Intel SDM vol. 1, 3.3.4).
            Register::ES | Register::CS | Register::SS | Register::DS if self.cpu.mode.bits == 64 => {
                segment_by_base(instruction.memory_base())
            }
            _ => segment_register(instruction.memory_segment()),
        };
        (segment, self.offset(instruction))
    }

    /// Segment of the operand that a string instruction addresses by (R)SI, or others by (R)DI alone.
    #[inline]
    pub(crate) fn string_segment(&self, instruction: &Instruction) -> SegReg {
        match segment_register(instruction.memory_segment()) {
            // Here too prefixes without a base of their own mean nothing.
            SegReg::Es | SegReg::Cs | SegReg::Ss if self.cpu.mode.bits == 64 => SegReg::Ds,
            segment => segment,
        }
    }

    /// The offset of the memory operand, as `LEA` computes it.
    #[inline]
    pub(crate) fn offset(&self, instruction: &Instruction) -> u64 {
        let wide = |register: Register| {
            let number = (register as usize).wrapping_sub(Register::RAX as usize);
            (number < 16).then_some(number)
        };
        let Some(base) = wide(instruction.memory_base()) else {
            return self.any_offset(instruction);
        };
        let offset = self.cpu.gpr[base].wrapping_add(instruction.memory_displacement64());
        match wide(instruction.memory_index()) {
            Some(index) => {
                offset.wrapping_add(self.cpu.gpr[index].wrapping_mul(instruction.memory_index_scale().into()))
            }
            None if instruction.memory_index() == Register::None => offset,
            None => self.any_offset(instruction),
        }
    }

    /// [`Exec::offset`] where the base is no 64-bit register.
    fn any_offset(&self, instruction: &Instruction) -> u64 {
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        let displacement = instruction.memory_displacement64();
        if matches!(base, Register::RIP | Register::EIP) {
            // Already relative to nothing: the decoder added the next instruction's address.
            return displacement;
        }
        let mut offset = displacement;
        if base != Register::None {
            offset = offset.wrapping_add(self.gpr(base));
        }
        if index != Register::None {
            offset = offset.wrapping_add(
                self.gpr(index)
                    .wrapping_mul(instruction.memory_index_scale().into()),
            );
        }
        offset & address_mask(instruction, self.cpu.mode.bits)
    }

    /// Reads operand `index`, a general register, memory of up to 8 bytes or an immediate; zero-extended, but
    /// immediates as the instruction extends them.
    #[inline]
    pub(crate) fn read(&mut self, instruction: &Instruction, index: u32) -> Result<u64, Exception> {
        match instruction.op_kind(index) {
            OpKind::Register => Ok(self.gpr(instruction.op_register(index))),
            OpKind::Memory => {
                let (segment, offset) = self.effective_address(instruction);
                self.load(segment, offset, instruction.memory_size().size())
            }
            _ => Ok(instruction.immediate(index)),
        }
    }

    /// Writes operand `index`, a general register or memory of up to 8 bytes.
    #[inline]
    pub(crate) fn write(
        &mut self,
        instruction: &Instruction,
        index: u32,
        value: u64,
    ) -> Result<(), Exception> {
        if instruction.op_kind(index) == OpKind::Register {
            self.set_gpr(instruction.op_register(index), value);
            return Ok(());
        }
        let (segment, offset) = self.effective_address(instruction);
        self.store(segment, offset, instruction.memory_size().size(), value)
    }

    /// Reads, changes and writes operand `index`; as one step with a LOCK prefix (and, for memory, where
    /// `always_locked`). Gives back what was there and what `change` made of it; `change` may run more than
    /// once, and must have no effect of its own.
    #[inline]
    pub(crate) fn update(
        &mut self,
        instruction: &Instruction,
        index: u32,
        always_locked: bool,
        mut change: impl FnMut(u64) -> u64,
    ) -> Result<(u64, u64), Exception> {
        if instruction.op_kind(index) == OpKind::Register {
            let register = instruction.op_register(index);
            let old = self.gpr(register);
            let new = change(old);
            self.set_gpr(register, new);
            return Ok((old, new));
        }
        let (segment, offset) = self.effective_address(instruction);
        let size = instruction.memory_size().size();
        let linear = self.linear(segment, offset, size as u64, Access::Write)?;
        let locked = always_locked || instruction.has_lock_prefix();
        self.linear_update(self.cpu.mode.set, linear, size, locked, change)
    }

    /// The stack pointer as wide as the stack is.
    pub(crate) fn stack_pointer(&self) -> u64 {
        self.cpu.gpr[Cpu::RSP] & Mode::mask(self.cpu.mode.stack_bits)
    }

    /// Writes the stack pointer as wide as the stack is.
    pub(crate) fn set_stack_pointer(&mut self, value: u64) {
        let mask = Mode::mask(self.cpu.mode.stack_bits);
        let slot = &mut self.cpu.gpr[Cpu::RSP];
        *slot = if self.cpu.mode.stack_bits == 32 {
            value & mask
        } else {
            *slot & !mask | value & mask
        };
    }

    /// Pushes `size` bytes.
    #[inline]
    pub(crate) fn push(&mut self, size: usize, value: u64) -> Result<(), Exception> {
        let top = self.stack_pointer().wrapping_sub(size as u64) & Mode::mask(self.cpu.mode.stack_bits);
        self.store(SegReg::Ss, top, size, value)?;
        self.set_stack_pointer(top);
        Ok(())
    }

    /// The `size` bytes at the top of the stack and `depth` bytes below, without popping.
    #[inline]
    pub(crate) fn peek(&mut self, depth: u64, size: usize) -> Result<u64, Exception> {
        let at = self.stack_pointer().wrapping_add(depth) & Mode::mask(self.cpu.mode.stack_bits);
        self.load(SegReg::Ss, at, size)
    }

    /// Pops `size` bytes.
    #[inline]
    pub(crate) fn pop(&mut self, size: usize) -> Result<u64, Exception> {
        let value = self.peek(0, size)?;
        self.set_stack_pointer(self.stack_pointer().wrapping_add(size as u64));
        Ok(value)
    }
}

/// The segment register of an address with this base.
fn segment_by_base(base: Register) -> SegReg {
    match base {
        Register::RSP | Register::RBP | Register::ESP | Register::EBP => SegReg::Ss,
        _ => SegReg::Ds,
    }
}

/// The segment register that `register` names; DS where it names none.
pub(crate) fn segment_register(register: Register) -> SegReg {
    match register {
        Register::ES => SegReg::Es,
        Register::CS => SegReg::Cs,
        Register::SS => SegReg::Ss,
        Register::FS => SegReg::Fs,
        Register::GS => SegReg::Gs,
        _ => SegReg::Ds,
    }
}

/// How wide addresses of this instruction are: its registers say so, else its displacement.
pub(crate) fn address_mask(instruction: &Instruction, bits: u8) -> u64 {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let register = if base != Register::None { base } else { index };
    let size = match register {
        Register::None => instruction.memory_displ_size() as usize,
        // A vector index has no address width of its own.
        register if register.is_vector_register() => usize::from(bits) / 8,
        register => register.size(),
    };
    match size {
        2 => 0xffff,
        4 => 0xffff_ffff,
        8 => u64::MAX,
        // A displacement of one byte or none comes only with registers.
        _ => Mode::mask(bits),
    }
}
