//! Moves that leave all flags alone, and those between AH and the flags.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::flags::{AF, CF, FIXED, PF, SF, ZF};
use super::operands::{by_size, by_word_size, immediate, is_register, size_of};
use crate::cpu::Cpu;
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask, sign_extend};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match instruction.mnemonic() {
        Mnemonic::Mov => mov(instruction),
        Mnemonic::Movnti => by_size!(size, store_register),
        Mnemonic::Movzx => extending::<false>(instruction),
        Mnemonic::Movsx | Mnemonic::Movsxd => extending::<true>(instruction),
        Mnemonic::Lea => by_word_size!(size, lea),
        Mnemonic::Movbe if is_register(instruction, 0) => by_word_size!(size, movbe_load),
        Mnemonic::Movbe => by_word_size!(size, movbe_store),
        Mnemonic::Bswap => by_word_size!(size, bswap),
        Mnemonic::Cbw => Some(widen_accumulator::<1, 2>),
        Mnemonic::Cwde => Some(widen_accumulator::<2, 4>),
        Mnemonic::Cdqe => Some(widen_accumulator::<4, 8>),
        Mnemonic::Cwd => Some(sign_to_dx::<2>),
        Mnemonic::Cdq => Some(sign_to_dx::<4>),
        Mnemonic::Cqo => Some(sign_to_dx::<8>),
        Mnemonic::Xlatb => Some(xlat),
        Mnemonic::Lahf => Some(lahf),
        Mnemonic::Sahf => Some(sahf),
        _ => None,
    }
}

/// `MOV` between general registers, memory and immediates.
fn mov(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match (instruction.op0_kind(), instruction.op1_kind()) {
        // Control, debug and segment registers have no size here.
        (OpKind::Register, OpKind::Register) if size_of(instruction, 1) == 0 => None,
        (OpKind::Register, OpKind::Register) => by_size!(size, copy_register),
        (OpKind::Register, OpKind::Memory) => by_size!(size, load_register),
        (OpKind::Register, _) => by_size!(size, load_immediate),
        (OpKind::Memory, OpKind::Register) if size_of(instruction, 1) == 0 => None,
        (OpKind::Memory, OpKind::Register) => by_size!(size, store_register),
        (OpKind::Memory, _) => by_size!(size, store_immediate),
        _ => None,
    }
}

fn copy_register<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.register::<S>(instruction.op1_register());
    exec.set_register::<S>(instruction.op0_register(), value);
    Ok(())
}

fn load_register<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.load_operand::<S>(instruction)?;
    exec.set_register::<S>(instruction.op0_register(), value);
    Ok(())
}

fn load_immediate<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.set_register::<S>(instruction.op0_register(), immediate::<S>(instruction));
    Ok(())
}

fn store_register<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.register::<S>(instruction.op1_register());
    exec.store_operand::<S>(instruction, value)
}

fn store_immediate<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.store_operand::<S>(instruction, immediate::<S>(instruction))
}

/// `MOVZX`, `MOVSX`, `MOVSXD`.
fn extending<const SIGNED: bool>(instruction: &Instruction) -> Option<Handler> {
    let (to, from) = (size_of(instruction, 0), size_of(instruction, 1));
    let handler: Handler = match (to, from) {
        (2, 1) => extend::<SIGNED, 2, 1>,
        (4, 1) => extend::<SIGNED, 4, 1>,
        (8, 1) => extend::<SIGNED, 8, 1>,
        (2, 2) => extend::<SIGNED, 2, 2>,
        (4, 2) => extend::<SIGNED, 4, 2>,
        (8, 2) => extend::<SIGNED, 8, 2>,
        (4, 4) => extend::<SIGNED, 4, 4>,
        (8, 4) => extend::<SIGNED, 8, 4>,
        _ => return None,
    };
    Some(handler)
}

fn extend<const SIGNED: bool, const TO: usize, const FROM: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let value = exec.read_sized::<FROM>(instruction, 1)?;
    let value = if SIGNED { sign_extend(value, FROM) } else { value };
    exec.set_register::<TO>(instruction.op0_register(), value);
    Ok(())
}

fn lea<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let offset = exec.offset(instruction);
    exec.set_register::<S>(instruction.op0_register(), offset);
    Ok(())
}

/// The low `S` bytes the other way round.
fn swapped<const S: usize>(value: u64) -> u64 {
    value.swap_bytes() >> (64 - S * 8)
}

fn movbe_load<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.load_operand::<S>(instruction)?;
    exec.set_register::<S>(instruction.op0_register(), swapped::<S>(value));
    Ok(())
}

fn movbe_store<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.register::<S>(instruction.op1_register());
    exec.store_operand::<S>(instruction, swapped::<S>(value))
}

/// With 16 bits the result is undefined; processors clear the register.
fn bswap<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let register = instruction.op0_register();
    let value = if S == 2 {
        0
    } else {
        swapped::<S>(exec.register::<S>(register))
    };
    exec.set_register::<S>(register, value);
    Ok(())
}

fn widen_accumulator<const FROM: usize, const TO: usize>(
    exec: &mut Exec<'_>,
    _: &Instruction,
) -> Result<(), Exception> {
    let value = sign_extend(exec.accumulator::<FROM>(), FROM);
    exec.set_number::<TO>(Cpu::RAX, value);
    Ok(())
}

fn sign_to_dx<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let negative = exec.accumulator::<S>() >> (S * 8 - 1) != 0;
    exec.set_number::<S>(Cpu::RDX, if negative { mask(S) } else { 0 });
    Ok(())
}

/// The operand is memory at rBX + AL.
fn xlat(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.load_operand::<1>(instruction)?;
    exec.set_number::<1>(Cpu::RAX, value);
    Ok(())
}

const IN_AH: u64 = SF | ZF | AF | PF | CF;

fn lahf(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.set_gpr(Register::AH, exec.cpu.rflags & IN_AH | FIXED);
    Ok(())
}

fn sahf(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let ah = exec.gpr(Register::AH);
    exec.cpu.rflags = exec.cpu.rflags & !IN_AH | ah & IN_AH;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::integer::*;

    #[test]
    fn mov_to_32_bits_clears_the_upper_half_and_to_less_keeps_the_rest() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(0, u64::MAX), (1, u64::MAX), (2, u64::MAX), (3, 0)]);

        machine.run(&[0x89, 0xd8]).unwrap();
        machine.run(&[0x66, 0x89, 0xd9]).unwrap();
        machine.run(&[0x88, 0xde]).unwrap();

        assert_eq!(machine.cpu.gpr[..3], [0, !0xffff, !0xff00]);
    }

    #[test]
    fn mov_with_an_absolute_address_or_one_relative_to_rip_reaches_memory() {
        let mut machine = Machine::new(64);
        machine.set_quad(DATA + 0x10, 0x1234_5678_9abc_def0);
        let mut absolute = vec![0x48, 0xa1];
        absolute.extend((DATA + 0x10).to_le_bytes());
        let mut relative = vec![0x48, 0x8b, 0x1d];
        relative.extend(((DATA + 0x10 - START - 7) as u32).to_le_bytes());

        machine.run(&absolute).unwrap();
        machine.run(&relative).unwrap();

        assert_eq!(machine.cpu.gpr[Cpu::RAX], 0x1234_5678_9abc_def0);
        assert_eq!(machine.cpu.gpr[Cpu::RBX], 0x1234_5678_9abc_def0);
    }

    #[test]
    fn extensions_fill_with_zeros_or_the_sign() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RBX, 0x8081), (Cpu::RSI, DATA), (Cpu::RDI, 0x80)]);
        machine.set_bytes(DATA, &[0xfe, 0xff, 0xff, 0xff]);
        for (code, rax) in [
            (&[0x0f, 0xb6, 0xc3][..], 0x81),
            (&[0x0f, 0xbe, 0xc3], 0xffff_ff81),
            (&[0x48, 0x0f, 0xbe, 0xc7], 0xffff_ffff_ffff_ff80),
            (&[0x48, 0x0f, 0xb7, 0x06], 0xfffe),
            (&[0x48, 0x63, 0x06], u64::MAX - 1),
        ] {
            machine.run(code).unwrap();
            assert_eq!(machine.cpu.gpr[Cpu::RAX], rax, "{code:02x?}");
        }
    }

    #[test]
    fn accumulator_extensions_widen_it_or_fill_dx() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, 0x80), (Cpu::RDX, 7)]);
        machine.run(&[0x66, 0x98]).unwrap();
        machine.run(&[0x98]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RAX], 0xffff_ff80);
        machine.run(&[0x66, 0x99]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RDX], 0xffff);
        machine.run(&[0x48, 0x99]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RDX], 0);
        machine.run(&[0x48, 0x98]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RAX], 0xffff_ffff_ffff_ff80);
    }

    #[test]
    fn lea_computes_at_its_address_width() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RSI, u64::MAX), (Cpu::RCX, 2)]);

        machine.run(&[0x48, 0x8d, 0x44, 0x8e, 0x10]).unwrap();
        machine.run(&[0x67, 0x48, 0x8d, 0x5e, 0x80]).unwrap();
        machine
            .run(&[0x48, 0x8d, 0x14, 0x25, 0, 0xff, 0xff, 0xff])
            .unwrap();

        assert_eq!(machine.cpu.gpr[Cpu::RDX], 0x100_u64.wrapping_neg());
        assert_eq!(machine.cpu.gpr[Cpu::RAX], 0x17);
        assert_eq!(machine.cpu.gpr[Cpu::RBX], 0xffff_ff7f);
    }

    #[test]
    fn lea_in_16_bit_code_wraps_at_64_kib() {
        let mut machine = Machine::new(16);
        machine.set_gprs(&[(Cpu::RBX, 0xfff0), (Cpu::RSI, 0x20), (Cpu::RAX, 0xaaaa_0000)]);
        machine.run(&[0x8d, 0x40, 0x01]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RAX], 0xaaaa_0011);
    }

    #[test]
    fn byte_swaps_turn_registers_and_memory_round() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[
            (Cpu::RAX, 0x1122_3344_5566_7788),
            (Cpu::RSI, DATA),
            (Cpu::RCX, 0x1_0203),
        ]);

        machine.run(&[0x48, 0x0f, 0xc8]).unwrap();
        machine.run(&[0x66, 0x0f, 0x38, 0xf1, 0x0e]).unwrap();
        machine.run(&[0x0f, 0x38, 0xf0, 0x1e]).unwrap();

        assert_eq!(machine.cpu.gpr[Cpu::RAX], 0x8877_6655_4433_2211);
        assert_eq!(machine.bytes(DATA, 2), [2, 3]);
        assert_eq!(machine.cpu.gpr[Cpu::RBX], 0x0203_0000);
    }

    #[test]
    fn xlat_looks_up_al_behind_rbx() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, 0xff80), (Cpu::RBX, DATA)]);
        machine.set_bytes(DATA + 0x80, &[0x5a]);
        machine.run(&[0xd7]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RAX], 0xff5a);
    }

    #[test]
    fn lahf_and_sahf_move_five_flags() {
        let mut machine = Machine::new(64);
        machine.cpu.set_status(crate::cpu::flags::STATUS);
        machine.run(&[0x9f]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RAX], 0xd700);
        machine.cpu.gpr[Cpu::RAX] = 0x0100;
        machine.run(&[0x9e]).unwrap();
        assert_eq!(machine.status(), CF | crate::cpu::flags::OF);
    }
}
