//! Instructions that move between MMX registers, others, and memory, and those that take an immediate for where.

use iced_x86::{Code, Instruction, OpKind, Register};

use super::lanes::{bytes, from_words, words};
use super::mm;
use crate::cpu::{Cpu, Mode, SegReg, control as cr};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};
use crate::memory::Access;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.code() {
        Code::Movd_mm_rm32 | Code::Movq_mm_rm64 | Code::Movq_mm_mmm64 => load,
        Code::Movd_rm32_mm | Code::Movq_rm64_mm | Code::Movq_mmm64_mm | Code::Movntq_m64_mm => store,
        Code::Movq2dq_xmm_mm => to_xmm,
        Code::Movdq2q_mm_xmm => from_xmm,
        Code::Maskmovq_rDI_mm_mm => store_selected,
        Code::Pmovmskb_r32_mm | Code::Pmovmskb_r64_mm => signs,
        Code::Pextrw_r32_mm_imm8 | Code::Pextrw_r64_mm_imm8 => extract_word,
        Code::Pinsrw_mm_r32m16_imm8 | Code::Pinsrw_mm_r64m16_imm8 => insert_word,
        Code::Pshufw_mm_mmm64_imm8 => shuffle_words,
        Code::Palignr_mm_mmm64_imm8 => align,
        _ => return None,
    };
    Some(handler)
}

impl Exec<'_> {
    /// What instructions check that touch XMM registers as well.
    pub(super) fn check_sse(&self) -> Result<(), Exception> {
        if self.cpu.cr0 & cr::CR0_EM != 0 || self.cpu.cr4 & cr::CR4_OSFXSR == 0 {
            return Err(Exception::UNDEFINED);
        }
        self.check_x87()
    }
}

fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_mmx()?;
    let value = exec.read_mm(instruction, 1)?;
    exec.finish_mm(instruction, value);
    Ok(())
}

fn store(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_mmx()?;
    let value = exec.read_mm(instruction, 1)?;
    let to = instruction.op_register(0);
    if instruction.op_kind(0) == OpKind::Register && to.is_mm() {
        exec.finish_mm(instruction, value);
        return Ok(());
    }
    exec.write(instruction, 0, value)?;
    exec.cpu.x87.enter_mmx();
    Ok(())
}

fn to_xmm(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_sse()?;
    exec.check_mmx()?;
    let value = exec.read_mm(instruction, 1)?;
    exec.cpu.x87.enter_mmx();
    let register = &mut exec.cpu.vector.registers[xmm(instruction.op_register(0))];
    (register.0[0], register.0[1]) = (value, 0);
    Ok(())
}

fn from_xmm(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_sse()?;
    exec.check_mmx()?;
    let value = exec.cpu.vector.registers[xmm(instruction.op_register(1))].0[0];
    exec.finish_mm(instruction, value);
    Ok(())
}

/// Number of an XMM register that code without EVEX can name.
pub(super) fn xmm(register: Register) -> usize {
    register.number() & 15
}

/// `MASKMOVQ`: stores those bytes whose mask byte has its top bit set.
fn store_selected(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_mmx()?;
    let value = bytes(exec.cpu.x87.mm(mm(instruction.op_register(1))));
    let mask = bytes(exec.cpu.x87.mm(mm(instruction.op_register(2))));
    let (segment, offset) = string_destination(exec, instruction);
    let selected = |lane: &u64| mask[*lane as usize] & 0x80 != 0;
    // The x87 is turned even where memory faults, which it does as if all bytes were stored: seen on Zen.
    exec.cpu.x87.enter_mmx();
    let start = exec.linear(segment, offset, 8, Access::Write)?;
    let set = exec.cpu.mode.set;
    exec.linear_probe(set, start, 8, Access::Write)?;
    for lane in (0..8).filter(selected) {
        exec.linear_store(set, exec.behind(start, lane), 1, value[lane as usize].into())?;
    }
    Ok(())
}

/// The operand that RDI addresses, in DS unless a prefix names another.
fn string_destination(exec: &Exec<'_>, instruction: &Instruction) -> (SegReg, u64) {
    let bits = match instruction.op_kind(0) {
        OpKind::MemorySegDI => 16,
        OpKind::MemorySegEDI => 32,
        _ => 64,
    };
    let segment = exec.string_segment(instruction);
    (segment, exec.cpu.gpr[Cpu::RDI] & Mode::mask(bits))
}

/// `PMOVMSKB`.
fn signs(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_mmx()?;
    let lanes = bytes(exec.read_mm(instruction, 1)?);
    let mask = (0..8).fold(0, |mask, lane| mask | u64::from(lanes[lane] >> 7) << lane);
    exec.cpu.x87.enter_mmx();
    exec.set_gpr(instruction.op_register(0), mask);
    Ok(())
}

fn extract_word(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_mmx()?;
    let lanes = words(exec.read_mm(instruction, 1)?);
    let word = lanes[usize::from(instruction.immediate8() & 3)];
    exec.cpu.x87.enter_mmx();
    exec.set_gpr(instruction.op_register(0), word.into());
    Ok(())
}

fn insert_word(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_mmx()?;
    let word = exec.read(instruction, 1)? as u16;
    let mut lanes = words(exec.read_mm(instruction, 0)?);
    lanes[usize::from(instruction.immediate8() & 3)] = word;
    exec.finish_mm(instruction, from_words(lanes));
    Ok(())
}

fn shuffle_words(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_mmx()?;
    let lanes = words(exec.read_mm(instruction, 1)?);
    let order = instruction.immediate8();
    let from = [0, 2, 4, 6].map(|shift| lanes[usize::from(order >> shift & 3)]);
    exec.finish_mm(instruction, from_words(from));
    Ok(())
}

/// `PALIGNR`: eight bytes out of sixteen.
fn align(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_mmx()?;
    let low = exec.read_mm(instruction, 1)?;
    let high = exec.read_mm(instruction, 0)?;
    let both = u128::from(high) << 64 | u128::from(low);
    let shift = u32::from(instruction.immediate8()) * 8;
    exec.finish_mm(instruction, both.checked_shr(shift).unwrap_or(0) as u64);
    Ok(())
}
