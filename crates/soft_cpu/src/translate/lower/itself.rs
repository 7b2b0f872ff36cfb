//! Instructions that run as themselves, with other registers and another address.

use iced_x86::{Code, Instruction, InstructionInfoOptions, OpAccess, OpKind, Register};

use super::Lowering;
use crate::cpu::SegReg;
use crate::exec::{GprOperand, segment_register};
use crate::translate::assembler::RSP;
use crate::translate::assembler::Reg;
use crate::translate::eligible;
use crate::translate::flags::{Flags, Use};
use crate::translate::layout;
use crate::translate::registers::{T0, T1, host, name};

impl Lowering<'_> {
    /// The instruction itself, with its operands where they are here.
    pub(super) fn as_itself(&mut self, index: u32, instruction: &Instruction) -> bool {
        let info = self.info.info_options(instruction, InstructionInfoOptions::NONE);
        let memory = info.used_memory().first().map(|memory| memory.access());
        if info.used_memory().len() > 1 {
            return false;
        }
        let access = |operand| info.op_access(operand);
        let Some(spilled) = Spilled::of(instruction, access) else {
            return false;
        };
        let has_memory =
            (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
        let limit = if has_memory { 1 } else { 2 };
        if spilled.registers.len() > limit || has_memory && memory.is_none() {
            return false;
        }
        // With a register in T1 the address is in T0 alone.
        let folded = !spilled.registers.is_empty();
        let flags = Use::of(instruction);
        let wants_flags =
            flags.reads || flags.changes && flags.keeps && !self.flags_die_unseen(index as usize + 1);
        let constant_address = instruction.is_ip_rel_memory_operand()
            || instruction.memory_base() == Register::None && instruction.memory_index() == Register::None;
        let based = !matches!(
            segment_register(instruction.memory_segment()),
            SegReg::Fs | SegReg::Gs
        );
        let whole = folded || wants_flags || constant_address && based;
        let Some(code) = self.encode(instruction, &spilled, has_memory, whole) else {
            return false;
        };
        if eligible::uses_vectors(instruction) {
            self.want_vectors();
        }
        if has_memory {
            let size = instruction.memory_size().size();
            let write = memory.is_some_and(writes);
            if size == 0 || size > 32 {
                return false;
            }
            self.clobber_flags();
            let constant = self.linear(instruction);
            let align = eligible::alignment(instruction, size);
            let (address, misses) = self.look_up(constant, size, write, align);
            if whole {
                self.fold(address);
            }
            self.execute(&code, wants_flags, flags.changes, &spilled, &[T1]);
            self.slow_path(misses, index);
        } else {
            self.execute(&code, wants_flags, flags.changes, &spilled, &[T0, T1]);
        }
        true
    }

    /// The encoded instruction, with what it wants before and after.
    fn execute(
        &mut self,
        code: &[u8],
        wants_flags: bool,
        changes_flags: bool,
        spilled: &Spilled,
        spares: &[Reg],
    ) {
        if wants_flags {
            self.want_flags();
        }
        for (register, &spare) in spilled.registers.iter().zip(spares) {
            if register.read {
                self.asm.load(spare, RSP, layout::gpr(register.number));
            }
        }
        self.asm.raw(code);
        for (register, &spare) in spilled.registers.iter().zip(spares) {
            if register.written {
                self.asm.store(RSP, layout::gpr(register.number), spare);
            }
        }
        if changes_flags {
            self.flags = Flags::Host;
        }
    }

    /// Encodes `instruction` with host registers. `None` where that cannot be done.
    fn encode(
        &mut self,
        instruction: &Instruction,
        spilled: &Spilled,
        has_memory: bool,
        whole: bool,
    ) -> Option<Vec<u8>> {
        let spares: &[Reg] = if has_memory { &[T1] } else { &[T0, T1] };
        let mut moved = *instruction;
        moved.set_code(with_modrm(instruction.code()));
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::Register => {
                    let register = instruction.op_register(operand);
                    if let Some(gpr) = GprOperand::of(register).filter(|gpr| !gpr.high) {
                        let reg = host(gpr.number).or_else(|| spilled.spare(gpr.number, spares))?;
                        moved.set_op_register(operand, name(reg, gpr.size));
                    }
                }
                OpKind::Memory => {
                    moved.set_memory_base(Register::R14);
                    moved.set_memory_index(if whole { Register::None } else { Register::R15 });
                    moved.set_memory_index_scale(1);
                    moved.set_memory_displacement64(0);
                    moved.set_memory_displ_size(0);
                    moved.set_segment_prefix(Register::None);
                }
                _ => {}
            }
        }
        let encoded = self.encoder.encode(&moved, 0);
        // What a failure has left there is taken out as well.
        let bytes = self.encoder.take_buffer();
        encoded.ok().map(|_| bytes)
    }
}

/// A guest register that lives in memory and is an operand.
struct SpilledRegister {
    number: usize,
    read: bool,
    written: bool,
}

/// All of them, of one instruction.
struct Spilled {
    registers: Vec<SpilledRegister>,
}

impl Spilled {
    /// `None` where an operand cannot be given another register.
    fn of(instruction: &Instruction, access: impl Fn(u32) -> OpAccess) -> Option<Self> {
        let mut registers: Vec<SpilledRegister> = Vec::new();
        for operand in 0..instruction.op_count() {
            if instruction.op_kind(operand) != OpKind::Register {
                continue;
            }
            let Some(gpr) = GprOperand::of(instruction.op_register(operand)) else {
                continue;
            };
            if gpr.high || host(gpr.number).is_some() {
                continue;
            }
            let access = access(operand);
            let written = writes(access);
            // A narrow or conditional store keeps the rest.
            let read = access != OpAccess::Write || gpr.size < 4;
            match registers.iter_mut().find(|other| other.number == gpr.number) {
                Some(other) => (other.read, other.written) = (other.read || read, other.written || written),
                None => registers.push(SpilledRegister {
                    number: gpr.number,
                    read,
                    written,
                }),
            }
        }
        Some(Self { registers })
    }

    fn spare(&self, number: usize, spares: &[Reg]) -> Option<Reg> {
        let place = self
            .registers
            .iter()
            .position(|register| register.number == number)?;
        spares.get(place).copied()
    }
}

/// `MOV` between the accumulator and an absolute address, in the form that has a base register.
fn with_modrm(code: Code) -> Code {
    match code {
        Code::Mov_AL_moffs8 => Code::Mov_r8_rm8,
        Code::Mov_AX_moffs16 => Code::Mov_r16_rm16,
        Code::Mov_EAX_moffs32 => Code::Mov_r32_rm32,
        Code::Mov_RAX_moffs64 => Code::Mov_r64_rm64,
        Code::Mov_moffs8_AL => Code::Mov_rm8_r8,
        Code::Mov_moffs16_AX => Code::Mov_rm16_r16,
        Code::Mov_moffs32_EAX => Code::Mov_rm32_r32,
        Code::Mov_moffs64_RAX => Code::Mov_rm64_r64,
        other => other,
    }
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}
