//! Single bits: tests, and searches for the first one.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::flags::{self, CF, OF, PF, ZF, flag_if};
use super::operands::{by_word_size, is_register, size_of};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, address_mask, sign_extend};
use crate::memory::Access;

/// What becomes of a tested bit.
trait BitChange {
    /// Whether it is stored at all.
    const STORES: bool = true;
    fn apply(value: u64, bit: u64) -> u64;
}

struct Keep;
struct Set;
struct Reset;
struct Complement;

impl BitChange for Keep {
    const STORES: bool = false;
    fn apply(value: u64, _: u64) -> u64 {
        value
    }
}

impl BitChange for Set {
    fn apply(value: u64, bit: u64) -> u64 {
        value | bit
    }
}

impl BitChange for Reset {
    fn apply(value: u64, bit: u64) -> u64 {
        value & !bit
    }
}

impl BitChange for Complement {
    fn apply(value: u64, bit: u64) -> u64 {
        value ^ bit
    }
}

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match instruction.mnemonic() {
        Mnemonic::Bt => bit_test::<Keep>(instruction),
        Mnemonic::Bts => bit_test::<Set>(instruction),
        Mnemonic::Btr => bit_test::<Reset>(instruction),
        Mnemonic::Btc => bit_test::<Complement>(instruction),
        Mnemonic::Bsf => by_word_size!(size, bit_scan, false),
        Mnemonic::Bsr => by_word_size!(size, bit_scan, true),
        Mnemonic::Tzcnt => by_word_size!(size, count_zeros, false),
        Mnemonic::Lzcnt => by_word_size!(size, count_zeros, true),
        Mnemonic::Popcnt => by_word_size!(size, count_ones),
        _ => None,
    }
}

fn bit_test<O: BitChange>(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    if is_register(instruction, 0) {
        by_word_size!(size, test_register, O)
    } else {
        by_word_size!(size, test_memory, O)
    }
}

/// The bit's number: operand 1, as the signed number it is where it is a register.
#[inline]
fn bit_offset<const S: usize>(exec: &Exec<'_>, instruction: &Instruction) -> i64 {
    if instruction.op1_kind() == OpKind::Register {
        sign_extend(exec.register::<S>(instruction.op1_register()), S) as i64
    } else {
        i64::from(instruction.immediate8()) & (S as i64 * 8 - 1)
    }
}

/// CF tells what the bit was, the other flags stay.
fn set_carry(exec: &mut Exec<'_>, set: bool) {
    exec.cpu.rflags = exec.cpu.rflags & !CF | u64::from(set);
}

fn test_register<O: BitChange, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let bit = 1 << (bit_offset::<S>(exec, instruction) & (S as i64 * 8 - 1));
    let register = instruction.op0_register();
    let value = exec.register::<S>(register);
    if O::STORES {
        exec.set_register::<S>(register, O::apply(value, bit));
    }
    set_carry(exec, value & bit != 0);
    Ok(())
}

/// A bit string in memory reaches as far as the number does (Intel SDM vol. 2, 3.1.1.9).
fn test_memory<O: BitChange, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let number = bit_offset::<S>(exec, instruction);
    let bits = S as i64 * 8;
    let bit = 1 << (number & (bits - 1));
    let distance = number.div_euclid(bits) * S as i64;
    let (segment, offset) = exec.effective_address(instruction);
    let offset = offset.wrapping_add(distance as u64) & address_mask(instruction, exec.cpu.mode.bits);
    let value = if O::STORES {
        let linear = exec.linear(segment, offset, S as u64, Access::Write)?;
        let locked = instruction.has_lock_prefix();
        let set = exec.cpu.mode.set;
        exec.linear_update(set, linear, S, locked, |value| O::apply(value, bit))?
            .0
    } else {
        exec.load(segment, offset, S)?
    };
    set_carry(exec, value & bit != 0);
    Ok(())
}

/// Position of the lowest set bit of `value`, which has one, or of the highest.
fn position<const HIGHEST: bool>(value: u64) -> u64 {
    if HIGHEST {
        value.ilog2().into()
    } else {
        value.trailing_zeros().into()
    }
}

/// Without any set bit the destination stays as it is.
fn bit_scan<const HIGHEST: bool, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let value = exec.read_sized::<S>(instruction, 1)?;
    if value != 0 {
        exec.set_register::<S>(instruction.op0_register(), position::<HIGHEST>(value));
    }
    // Of the undefined flags AMD's processors set PF by the bit's number.
    let number = if value == 0 { 0 } else { position::<HIGHEST>(value) };
    exec.cpu
        .set_status(flags::of_result::<S>(number) & PF | flag_if(value == 0, ZF));
    Ok(())
}

/// `TZCNT` and (`LEADING`) `LZCNT`.
fn count_zeros<const LEADING: bool, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let value = exec.read_sized::<S>(instruction, 1)?;
    let bits = S as u64 * 8;
    let zeros = match (value, LEADING) {
        (0, _) => bits,
        (_, false) => position::<false>(value),
        (_, true) => bits - 1 - position::<true>(value),
    };
    exec.set_register::<S>(instruction.op0_register(), zeros);
    let status = flag_if(value == 0, CF) | flag_if(zeros == 0, ZF);
    // Of the undefined flags AMD's processors keep OF.
    exec.cpu.set_status(exec.cpu.rflags & OF | status);
    Ok(())
}

fn count_ones<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.read_sized::<S>(instruction, 1)?;
    exec.set_register::<S>(instruction.op0_register(), value.count_ones().into());
    exec.cpu.set_status(flag_if(value == 0, ZF));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::testing::integer::*;

    #[test]
    fn bit_tests_of_registers_wrap_at_their_width() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, 0b100), (Cpu::RCX, 34)]);

        machine.run(&[0x0f, 0xa3, 0xc8]).unwrap();
        assert_eq!(machine.status(), CF);
        machine.run(&[0x48, 0x0f, 0xab, 0xc8]).unwrap();
        assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.status()), (1 << 34 | 4, 0));
        machine.run(&[0x48, 0x0f, 0xba, 0xf0, 2]).unwrap();
        assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.status()), (1 << 34, CF));
        machine.run(&[0x48, 0x0f, 0xba, 0xf8, 63]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RAX], 1 << 63 | 1 << 34);
    }

    #[test]
    fn bit_strings_in_memory_reach_beyond_their_operand_both_ways() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[
            (Cpu::RSI, DATA + 0x100),
            (Cpu::RCX, -129_i64 as u64),
            (Cpu::RBX, 200),
        ]);

        machine.run(&[0x48, 0x0f, 0xab, 0x0e]).unwrap();
        machine.run(&[0xf0, 0x0f, 0xab, 0x1e]).unwrap();
        machine.run(&[0x66, 0x0f, 0xbb, 0x1e]).unwrap();

        assert_eq!(machine.quad(DATA + 0x100 - 24), 1 << 63);
        assert_eq!((machine.quad(DATA + 0x118), machine.status()), (0, CF));
    }

    #[test]
    fn bit_number_that_is_an_immediate_stays_in_the_operand() {
        let mut machine = Machine::new(64);
        machine.cpu.gpr[Cpu::RSI] = DATA;
        machine.run(&[0x0f, 0xba, 0x2e, 0xff]).unwrap();
        assert_eq!(machine.quad(DATA), 1 << 31);
    }

    #[test]
    fn bit_scans_of_nothing_leave_the_destination() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, u64::MAX), (Cpu::RBX, 0x50)]);

        machine.run(&[0x0f, 0xbc, 0xc1]).unwrap();
        assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.status()), (u64::MAX, ZF | PF));
        machine.run(&[0x0f, 0xbc, 0xc3]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RAX], 4);
        machine.run(&[0x48, 0x0f, 0xbd, 0xc3]).unwrap();
        assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.status()), (6, PF));
    }

    #[test]
    fn counts_of_bits_know_the_width() {
        let mut machine = Machine::new(64);
        for (code, rbx, count, status) in [
            (&[0xf3, 0x0f, 0xbc, 0xc3][..], 0, 32, CF),
            (&[0xf3, 0x66, 0x0f, 0xbd, 0xc3], 0x10, 11, 0),
            (&[0xf3, 0x48, 0x0f, 0xbd, 0xc3], 1 << 63, 0, ZF),
            (&[0xf3, 0x48, 0x0f, 0xb8, 0xc3], u64::MAX, 64, 0),
            (&[0xf3, 0x0f, 0xb8, 0xc3], 1 << 32, 0, ZF),
        ] {
            machine.set_gprs(&[(Cpu::RAX, 0), (Cpu::RBX, rbx)]);
            machine.cpu.set_status(0);
            machine.run(code).unwrap();
            assert_eq!(
                (machine.cpu.gpr[Cpu::RAX], machine.status()),
                (count, status),
                "{code:02x?}"
            );
        }
    }
}
