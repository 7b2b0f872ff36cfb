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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::cpu::flags::{AF, PF, SF, ZF};
    use crate::testing::integer::*;

    /// RAX after an instruction on RBX and RCX, and the status flags.
    fn computed(code: &[u8], rbx: u64, rcx: u64) -> (u64, u64) {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RBX, rbx), (Cpu::RCX, rcx)]);
        machine.run(code).unwrap();
        (machine.cpu.gpr[Cpu::RAX], machine.status())
    }

    #[test]
    fn fields_are_cut_out() {
        // andn rax, rbx, rcx; bextr, bzhi rax, rbx, rcx
        let andn = computed(&[0xc4, 0xe2, 0xe0, 0xf2, 0xc1], 0b1100, 0b1010);
        let bextr = computed(&[0xc4, 0xe2, 0xf0, 0xf7, 0xc3], 0xabcd, 0x0804);
        let too_far = computed(&[0xc4, 0xe2, 0xf0, 0xf7, 0xc3], u64::MAX, 0xff40);
        let bzhi = computed(&[0xc4, 0xe2, 0xf0, 0xf5, 0xc3], u64::MAX, 4);
        let whole = computed(&[0xc4, 0xe2, 0xf0, 0xf5, 0xc3], u64::MAX, 64);

        assert_eq!((andn, bextr), ((2, 0), (0xbc, AF)));
        assert_eq!((too_far, bzhi), ((0, ZF | PF | AF), (0xf, PF)));
        assert_eq!(whole, (u64::MAX, CF | SF | PF));
    }

    #[test]
    fn lowest_bits_are_isolated_masked_and_reset() {
        // blsi, blsmsk, blsr rax, rcx
        for (code, of_12, of_nothing) in [
            (&[0xc4, 0xe2, 0xf8, 0xf3, 0xd9], (4, CF), (0, ZF | PF)),
            (&[0xc4, 0xe2, 0xf8, 0xf3, 0xd1], (7, 0), (u64::MAX, CF | SF | PF)),
            (&[0xc4, 0xe2, 0xf8, 0xf3, 0xc9], (8, 0), (0, CF | ZF | PF)),
        ] {
            assert_eq!(computed(code, 0, 12), of_12, "{code:02x?}");
            assert_eq!(computed(code, 0, 0), of_nothing, "{code:02x?}");
        }
    }

    #[test]
    fn deposit_and_extract_undo_each_other() {
        let places = 0x8421_0000_ffff_0001;
        let (deposited, _) = computed(&[0xc4, 0xe2, 0xe3, 0xf5, 0xc1], 0x1f_ffff, places);
        let (extracted, _) = computed(&[0xc4, 0xe2, 0xe2, 0xf5, 0xc1], u64::MAX, places);
        assert_eq!((deposited, extracted), (places, 0x1f_ffff));
    }

    #[test]
    fn crc32_of_the_check_string_is_castagnolis() {
        let mut machine = Machine::new(64);
        machine.set_bytes(DATA, b"123456789");
        machine.set_gprs(&[(Cpu::RAX, 0xffff_ffff), (Cpu::RSI, DATA)]);

        machine.run(&[0xf2, 0x48, 0x0f, 0x38, 0xf1, 0x06]).unwrap();
        machine.run(&[0xf2, 0x0f, 0x38, 0xf0, 0x46, 0x08]).unwrap();

        assert_eq!(machine.cpu.gpr[Cpu::RAX] ^ 0xffff_ffff, 0xe306_9283);
    }
}
