//! An instruction of a given code with operands made up.

use iced_x86::{Code, Instruction, OpCodeOperandKind as Kind, OpKind, Register};

use super::values::{self, INDICES_32, INDICES_64, POINTERS, SMALL};
use crate::layout::WINDOW;
use crate::random::Random;

/// `None` for operands that cases do not have.
pub(super) fn fill(code: Code, random: &mut Random) -> Option<Instruction> {
    let info = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    for operand in 0..info.op_count() {
        set(&mut instruction, operand, info.op_kind(operand), random)?;
    }
    let memory = instruction.op0_kind() == OpKind::Memory;
    if info.can_use_lock_prefix() && memory && random.once_in(4) {
        instruction.set_has_lock_prefix(true);
    }
    if info.can_use_rep_prefix() && random.once_in(2) {
        instruction.set_has_rep_prefix(true);
    } else if info.can_use_repne_prefix() && random.once_in(2) {
        instruction.set_has_repne_prefix(true);
    }
    if random.once_in(24) {
        let segments = [
            Register::FS,
            Register::GS,
            Register::ES,
            Register::SS,
            Register::DS,
            Register::CS,
        ];
        instruction.set_segment_prefix(random.pick(&segments));
    }
    Some(instruction)
}

fn set(instruction: &mut Instruction, operand: u32, kind: Kind, random: &mut Random) -> Option<()> {
    let from_memory = |random: &mut Random| random.once_in(2);
    match kind {
        Kind::r8_or_mem
        | Kind::r16_or_mem
        | Kind::r32_or_mem
        | Kind::r64_or_mem
        | Kind::mm_or_mem
        | Kind::xmm_or_mem
        | Kind::ymm_or_mem
            if from_memory(random) =>
        {
            memory(instruction, operand, random);
        }
        Kind::mem => memory(instruction, operand, random),
        Kind::mem_vsib32x | Kind::mem_vsib64x | Kind::mem_vsib32y | Kind::mem_vsib64y => {
            gather(instruction, operand, kind, random);
        }
        Kind::mem_offs => {
            instruction.set_op_kind(operand, OpKind::Memory);
            instruction.set_memory_displ_size(8);
            instruction.set_memory_displacement64(values::address(random));
        }
        Kind::seg_rSI => instruction.set_op_kind(
            operand,
            pick_width(random, OpKind::MemorySegRSI, OpKind::MemorySegESI),
        ),
        Kind::es_rDI => instruction.set_op_kind(
            operand,
            pick_width(random, OpKind::MemoryESRDI, OpKind::MemoryESEDI),
        ),
        Kind::seg_rDI => instruction.set_op_kind(
            operand,
            pick_width(random, OpKind::MemorySegRDI, OpKind::MemorySegEDI),
        ),
        Kind::seg_rBX_al => instruction.set_op_kind(operand, OpKind::Memory),
        _ => match immediate_kind(kind) {
            Some(immediate) => set_immediate(instruction, operand, kind, immediate, random),
            None => instruction.set_op_register(operand, register(kind, random)?),
        },
    }
    if kind == Kind::seg_rBX_al {
        instruction.set_memory_base(Register::RBX);
        instruction.set_memory_index(Register::AL);
    }
    Some(())
}

fn pick_width(random: &mut Random, wide: OpKind, narrow: OpKind) -> OpKind {
    if random.once_in(8) { narrow } else { wide }
}

fn register(kind: Kind, random: &mut Random) -> Option<Register> {
    let numbered = |first: Register, random: &mut Random, count: usize| first + random.below(count) as u32;
    Some(match kind {
        Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => {
            let all = [
                Register::AL,
                Register::CL,
                Register::DL,
                Register::BL,
                Register::AH,
                Register::CH,
                Register::DH,
                Register::BH,
                Register::SPL,
                Register::BPL,
                Register::SIL,
                Register::DIL,
                Register::R8L,
                Register::R9L,
                Register::R15L,
            ];
            random.pick(&all)
        }
        Kind::r16_or_mem | Kind::r16_reg | Kind::r16_rm | Kind::r16_opcode => general(Register::AX, random),
        Kind::r32_or_mem | Kind::r32_reg | Kind::r32_rm | Kind::r32_opcode | Kind::r32_vvvv => {
            general(Register::EAX, random)
        }
        Kind::r64_or_mem | Kind::r64_reg | Kind::r64_rm | Kind::r64_opcode | Kind::r64_vvvv => {
            general(Register::RAX, random)
        }
        Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => numbered(Register::MM0, random, 8),
        Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_vvvv | Kind::xmm_is4 => {
            numbered(Register::XMM0, random, 16)
        }
        Kind::ymm_or_mem | Kind::ymm_reg | Kind::ymm_rm | Kind::ymm_vvvv | Kind::ymm_is4 => {
            numbered(Register::YMM0, random, 16)
        }
        Kind::sti_opcode => numbered(Register::ST0, random, 8),
        Kind::st0 => Register::ST0,
        Kind::al => Register::AL,
        Kind::cl => Register::CL,
        Kind::ax => Register::AX,
        Kind::dx => Register::DX,
        Kind::eax => Register::EAX,
        Kind::rax => Register::RAX,
        _ => return None,
    })
}

/// Seldom one that holds an address.
fn general(first: Register, random: &mut Random) -> Register {
    const VALUES: [u32; 8] = [0, 1, 2, 8, 9, 10, 11, 15];
    let number = if random.once_in(5) {
        random.below(16) as u32
    } else {
        random.pick(&VALUES)
    };
    first + number
}

fn memory(instruction: &mut Instruction, operand: u32, random: &mut Random) {
    instruction.set_op_kind(operand, OpKind::Memory);
    let narrow = random.once_in(16);
    let first = if narrow { Register::EAX } else { Register::RAX };
    match random.below(16) {
        0 => {
            instruction.set_memory_displ_size(4);
            instruction.set_memory_displacement64(WINDOW + 64 + random.below(128) as u64);
        }
        1 | 2 => {
            instruction.set_memory_base(Register::RIP);
            instruction.set_memory_displ_size(8);
            instruction.set_memory_displacement64(WINDOW + 64 + 16 * random.below(8) as u64);
        }
        kind => {
            instruction.set_memory_base(first + random.pick(&POINTERS) as u32);
            if kind < 6 {
                instruction.set_memory_index(first + random.pick(&SMALL) as u32);
                instruction.set_memory_index_scale(1 << random.below(4));
            }
            displace(instruction, random);
        }
    }
}

fn displace(instruction: &mut Instruction, random: &mut Random) {
    if random.once_in(2) {
        return;
    }
    let displacement = match random.below(4) {
        0 => random.below(64) as i64 - 32,
        _ => 16 * (random.below(6) as i64 - 3),
    };
    instruction.set_memory_displ_size(if random.once_in(4) { 8 } else { 1 });
    instruction.set_memory_displacement64(displacement as u64);
}

fn gather(instruction: &mut Instruction, operand: u32, kind: Kind, random: &mut Random) {
    instruction.set_op_kind(operand, OpKind::Memory);
    instruction.set_memory_base(Register::RAX + random.pick(&POINTERS) as u32);
    let number = match kind {
        Kind::mem_vsib32x | Kind::mem_vsib32y => INDICES_32,
        _ => INDICES_64,
    };
    let first = match kind {
        Kind::mem_vsib32x | Kind::mem_vsib64x => Register::XMM0,
        _ => Register::YMM0,
    };
    instruction.set_memory_index(first + number as u32);
    instruction.set_memory_index_scale(1 << random.below(3));
    displace(instruction, random);
}

fn immediate_kind(kind: Kind) -> Option<OpKind> {
    Some(match kind {
        Kind::imm4_m2z | Kind::imm8 | Kind::imm8_const_1 => OpKind::Immediate8,
        Kind::imm8sex16 => OpKind::Immediate8to16,
        Kind::imm8sex32 => OpKind::Immediate8to32,
        Kind::imm8sex64 => OpKind::Immediate8to64,
        Kind::imm16 => OpKind::Immediate16,
        Kind::imm32 => OpKind::Immediate32,
        Kind::imm32sex64 => OpKind::Immediate32to64,
        Kind::imm64 => OpKind::Immediate64,
        _ => return None,
    })
}

fn set_immediate(
    instruction: &mut Instruction,
    operand: u32,
    kind: Kind,
    immediate: OpKind,
    random: &mut Random,
) {
    // ENTER has a second one.
    let second = (0..operand).any(|other| instruction.op_kind(other) == OpKind::Immediate16);
    let immediate = if second { OpKind::Immediate8_2nd } else { immediate };
    instruction.set_op_kind(operand, immediate);
    let value = match kind {
        Kind::imm8_const_1 => 1,
        Kind::imm4_m2z => random.next() & 3,
        _ => values::word(random),
    };
    let value = match immediate {
        OpKind::Immediate8 | OpKind::Immediate8_2nd => value & 0xff,
        OpKind::Immediate16 => value & 0xffff,
        OpKind::Immediate32 => value & 0xffff_ffff,
        OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64 => value as i8 as u64,
        OpKind::Immediate32to64 => value as i32 as u64,
        _ => value,
    };
    match immediate {
        OpKind::Immediate8_2nd => instruction.set_immediate8_2nd(value as u8),
        OpKind::Immediate8 => instruction.set_immediate8(value as u8),
        OpKind::Immediate16 => instruction.set_immediate16(value as u16),
        OpKind::Immediate32 => instruction.set_immediate32(value as u32),
        OpKind::Immediate8to16 => instruction.set_immediate8to16(value as i16),
        OpKind::Immediate8to32 => instruction.set_immediate8to32(value as i32),
        OpKind::Immediate8to64 => instruction.set_immediate8to64(value as i64),
        OpKind::Immediate32to64 => instruction.set_immediate32to64(value as i64),
        _ => instruction.set_immediate64(value),
    }
}
