//! The x87 environment in the layouts of before `FXSAVE` (Intel SDM vol. 1, 8.1.10).

use iced_x86::{Code, Instruction};

use super::{REGISTER, X87, area, status};
use crate::cpu::{Cpu, control as cr, flags};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

/// Seven words, or seven double words.
const LEN_16: usize = 14;
const LEN_32: usize = 28;
/// Eight registers of 80 bits follow in `FNSAVE`.
const REGISTERS: usize = 80;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.code() {
        Code::Fnstenv_m14byte => store_environment::<LEN_16>,
        Code::Fnstenv_m28byte => store_environment::<LEN_32>,
        Code::Fldenv_m14byte => load_environment::<LEN_16>,
        Code::Fldenv_m28byte => load_environment::<LEN_32>,
        Code::Fnsave_m94byte => save::<LEN_16>,
        Code::Fnsave_m108byte => save::<LEN_32>,
        Code::Frstor_m94byte => restore::<LEN_16>,
        Code::Frstor_m108byte => restore::<LEN_32>,
        _ => return None,
    };
    Some(handler)
}

fn store_environment<const LEN: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    exec.check_x87()?;
    let bytes = image(exec.cpu, LEN);
    let (segment, offset) = exec.effective_address(instruction);
    exec.write_bytes(segment, offset, &bytes[..LEN])?;
    let x87 = &mut exec.cpu.x87;
    x87.set_control(x87.control | status::FLAGS);
    Ok(())
}

fn load_environment<const LEN: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    exec.wait_x87()?;
    let mut bytes = [0; LEN];
    let (segment, offset) = exec.effective_address(instruction);
    exec.read_bytes(segment, offset, &mut bytes)?;
    load(exec.cpu, &bytes);
    Ok(())
}

fn save<const LEN: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_x87()?;
    let mut bytes = [0; LEN_32 + REGISTERS];
    bytes[..LEN_32].copy_from_slice(&image(exec.cpu, LEN));
    for (slot, register) in bytes[LEN..].chunks_exact_mut(10).zip(exec.cpu.x87.registers) {
        slot.copy_from_slice(&register.to_le_bytes()[..10]);
    }
    let (segment, offset) = exec.effective_address(instruction);
    exec.write_bytes(segment, offset, &bytes[..LEN + REGISTERS])?;
    exec.cpu.x87.initialize();
    Ok(())
}

fn restore<const LEN: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    let mut bytes = [0; LEN_32 + REGISTERS];
    let bytes = &mut bytes[..LEN + REGISTERS];
    let (segment, offset) = exec.effective_address(instruction);
    exec.read_bytes(segment, offset, bytes)?;
    load(exec.cpu, &bytes[..LEN]);
    for (register, slot) in exec
        .cpu
        .x87
        .registers
        .iter_mut()
        .zip(bytes[LEN..].chunks_exact(10))
    {
        *register = (u128::from(area::quad(slot, 0)) | u128::from(area::word(slot, 8)) << 64) & REGISTER;
    }
    Ok(())
}

/// Whether pointers are linear addresses instead of selectors and offsets.
fn is_real(cpu: &Cpu) -> bool {
    cpu.cr0 & cr::CR0_PE == 0 || cpu.rflags & flags::VM != 0
}

/// The environment in its first `len` bytes.
fn image(cpu: &Cpu, len: usize) -> [u8; LEN_32] {
    let x87 = &cpu.x87;
    let mut words = [0_u32; 7];
    words[0] = x87.control.into();
    words[1] = x87.status.into();
    words[2] = x87.full_tags().into();
    let opcode = u32::from(x87.opcode);
    if is_real(cpu) {
        let linear = |offset: u64, selector: u16| (offset as u32).wrapping_add(u32::from(selector) << 4);
        let code = linear(x87.instruction_pointer, x87.code_selector);
        let data = linear(x87.data_pointer, x87.data_selector);
        (words[3], words[4]) = (code & 0xffff, code >> 16 << 12 | opcode);
        (words[5], words[6]) = (data & 0xffff, data >> 16 << 12);
    } else {
        (words[3], words[5]) = (x87.instruction_pointer as u32, x87.data_pointer as u32);
        // The layout with words has no room for the opcode.
        words[4] = u32::from(x87.code_selector) | if len == LEN_32 { opcode << 16 } else { 0 };
        words[6] = x87.data_selector.into();
    }
    let mut bytes = [0; LEN_32];
    if len == LEN_16 {
        for (slot, word) in bytes.chunks_exact_mut(2).zip(words) {
            slot.copy_from_slice(&(word as u16).to_le_bytes());
        }
        return bytes;
    }
    for index in [0, 1, 2, 6] {
        words[index] |= 0xffff_0000;
    }
    if is_real(cpu) {
        // Where protected mode has 16 bits of its own, the upper part of an address lies.
        words[3] |= 0xffff_0000;
        words[5] |= 0xffff_0000;
        words[6] &= 0x0fff_ffff;
    }
    for (slot, word) in bytes.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Loads an environment of `bytes.len()` bytes; registers keep what they hold.
fn load(cpu: &mut Cpu, bytes: &[u8]) {
    let real = is_real(cpu);
    let mut words = [0_u32; 7];
    let width = bytes.len() / words.len();
    for (word, slot) in words.iter_mut().zip(bytes.chunks_exact(width)) {
        *word = area::quad(slot, 0) as u32;
    }
    let x87 = &mut cpu.x87;
    x87.turn_to(usize::from((words[1] as u16 & status::TOP) >> 11));
    x87.status = words[1] as u16;
    x87.set_control(words[0] as u16);
    x87.tags = abridge(words[2] as u16);
    if real {
        let linear = |low: u32, high: u32| u64::from(low & 0xffff | high >> 12 << 16);
        (x87.instruction_pointer, x87.code_selector) = (linear(words[3], words[4]), 0);
        (x87.data_pointer, x87.data_selector) = (linear(words[5], words[6]), 0);
        x87.opcode = words[4] as u16 & 0x7ff;
    } else {
        (x87.instruction_pointer, x87.code_selector) = (words[3].into(), words[4] as u16);
        (x87.data_pointer, x87.data_selector) = (words[5].into(), words[6] as u16);
        if width == 4 {
            x87.opcode = (words[4] >> 16) as u16 & 0x7ff;
        }
    }
}

/// One bit for each register out of two: whether it is not empty.
fn abridge(tags: u16) -> u8 {
    (0..8).fold(0, |bits, register| {
        bits | u8::from(tags >> (2 * register) & 3 != 3) << register
    })
}

impl X87 {
    /// Two bits for each physical register: valid, zero, special, empty (Intel SDM vol. 1, 8.1.7).
    fn full_tags(&self) -> u16 {
        (0..8).fold(0, |word, register| {
            word | self.full_tag(register) << (2 * register)
        })
    }

    fn full_tag(&self, register: usize) -> u16 {
        const VALID: u16 = 0;
        const ZERO: u16 = 1;
        const SPECIAL: u16 = 2;
        const EMPTY: u16 = 3;
        if self.tags >> register & 1 == 0 {
            return EMPTY;
        }
        let value = self.registers[register.wrapping_sub(self.top()) & 7];
        let (exponent, significand) = ((value >> 64) as u16 & 0x7fff, value as u64);
        match (exponent, significand) {
            (0, 0) => ZERO,
            (0 | 0x7fff, _) => SPECIAL,
            (_, significand) if significand >> 63 == 0 => SPECIAL,
            _ => VALID,
        }
    }
}
