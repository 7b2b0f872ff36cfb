//! BMI1 and BMI2: fields of bits; and CRC32.

use iced_x86::{Instruction, Mnemonic};

use super::flags::{self, CF, flag_if};
use super::operands::{by_size, by_wide_size, size_of};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match instruction.mnemonic() {
        Mnemonic::Andn => by_wide_size!(size, andn),
        Mnemonic::Bextr => by_wide_size!(size, bextr),
        Mnemonic::Blsi => by_wide_size!(size, lowest_bit, Isolate),
        Mnemonic::Blsmsk => by_wide_size!(size, lowest_bit, MaskUpTo),
        Mnemonic::Blsr => by_wide_size!(size, lowest_bit, Reset),
        Mnemonic::Bzhi => by_wide_size!(size, bzhi),
        Mnemonic::Pdep => by_wide_size!(size, pdep),
        Mnemonic::Pext => by_wide_size!(size, pext),
        Mnemonic::Crc32 => by_size!(size_of(instruction, 1), crc32),
        _ => None,
    }
}

fn andn<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let b = exec.read_sized::<S>(instruction, 2)?;
    let result = !exec.register::<S>(instruction.op1_register()) & b;
    exec.set_register::<S>(instruction.op0_register(), result);
    exec.cpu.set_status(flags::of_result::<S>(result));
    Ok(())
}

/// The bits of `value` below `count`, which may be more than there are.
fn low_bits(value: u64, count: u64) -> u64 {
    if count >= 64 {
        value
    } else {
        value & ((1 << count) - 1)
    }
}

/// Control: start in bits 7 to 0, length in bits 15 to 8.
fn bextr<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.read_sized::<S>(instruction, 1)?;
    let control = exec.register::<S>(instruction.op2_register());
    let from_start = value.checked_shr((control & 0xff) as u32).unwrap_or(0);
    let result = low_bits(from_start, control >> 8 & 0xff);
    exec.set_register::<S>(instruction.op0_register(), result);
    // Of the undefined flags AMD's processors set AF and, as ever, PF.
    let status = flags::of_result::<S>(result) & !flags::SF;
    exec.cpu.set_status(status | flags::AF);
    Ok(())
}

/// What `BLSI`, `BLSMSK` and `BLSR` make of the lowest set bit.
trait LowestBit {
    fn apply(value: u64) -> u64;
    /// CF tells whether the source was zero; for `BLSI` whether it was not.
    fn carry(value: u64) -> bool {
        value == 0
    }
}

struct Isolate;
struct MaskUpTo;
struct Reset;

impl LowestBit for Isolate {
    fn apply(value: u64) -> u64 {
        value & value.wrapping_neg()
    }
    fn carry(value: u64) -> bool {
        value != 0
    }
}

impl LowestBit for MaskUpTo {
    fn apply(value: u64) -> u64 {
        value ^ value.wrapping_sub(1)
    }
}

impl LowestBit for Reset {
    fn apply(value: u64) -> u64 {
        value & value.wrapping_sub(1)
    }
}

fn lowest_bit<O: LowestBit, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let value = exec.read_sized::<S>(instruction, 1)?;
    let result = O::apply(value) & crate::exec::mask(S);
    exec.set_register::<S>(instruction.op0_register(), result);
    let status = flags::of_result::<S>(result);
    exec.cpu.set_status(status | flag_if(O::carry(value), CF));
    Ok(())
}

fn bzhi<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.read_sized::<S>(instruction, 1)?;
    let from = exec.register::<S>(instruction.op2_register()) & 0xff;
    let result = low_bits(value, from);
    exec.set_register::<S>(instruction.op0_register(), result);
    let status = flags::of_result::<S>(result);
    exec.cpu.set_status(status | flag_if(from >= S as u64 * 8, CF));
    Ok(())
}

fn pdep<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let mut places = exec.read_sized::<S>(instruction, 2)?;
    let mut value = exec.register::<S>(instruction.op1_register());
    let mut result = 0;
    while places != 0 {
        if value & 1 != 0 {
            result |= places & places.wrapping_neg();
        }
        places &= places - 1;
        value >>= 1;
    }
    exec.set_register::<S>(instruction.op0_register(), result);
    Ok(())
}

fn pext<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let mut places = exec.read_sized::<S>(instruction, 2)?;
    let value = exec.register::<S>(instruction.op1_register());
    let (mut result, mut bit) = (0, 1_u64);
    while places != 0 {
        if value & places & places.wrapping_neg() != 0 {
            result |= bit;
        }
        places &= places - 1;
        bit = bit.wrapping_shl(1);
    }
    exec.set_register::<S>(instruction.op0_register(), result);
    Ok(())
}

/// What every value of a byte adds to a sum by the Castagnoli polynomial, bits reflected (Intel SDM vol. 2, CRC32).
const CASTAGNOLI: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = sum >> 1 ^ if sum & 1 != 0 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

/// The destination is 32 bits whose upper half is cleared, also where it is called 64 bits.
fn crc32<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let data = exec.read_sized::<S>(instruction, 1)?;
    let register = instruction.op0_register();
    let mut sum = exec.gpr(register) as u32;
    for byte in &data.to_le_bytes()[..S] {
        sum = sum >> 8 ^ CASTAGNOLI[usize::from(sum as u8 ^ byte)];
    }
    exec.set_gpr(register, sum.into());
    Ok(())
}
