//! Decimal arithmetic, and the undocumented `SALC`; none of it in 64-bit code.

use iced_x86::{Instruction, Mnemonic, Register};

use super::flags::{self, AF, CF, flag_if};
use crate::cpu::Cpu;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Daa => adjust_packed::<false>,
        Mnemonic::Das => adjust_packed::<true>,
        Mnemonic::Aaa => adjust_unpacked::<false>,
        Mnemonic::Aas => adjust_unpacked::<true>,
        Mnemonic::Aam => aam,
        Mnemonic::Aad => aad,
        Mnemonic::Salc => salc,
        _ => return None,
    };
    Some(handler)
}

/// `DAA` and (`DOWN`) `DAS`.
fn adjust_packed<const DOWN: bool>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let (old, present) = (exec.accumulator::<1>(), exec.cpu.rflags);
    let low = old & 0xf > 9 || present & AF != 0;
    let high = old > 0x99 || present & CF != 0;
    let correction = if low { 6 } else { 0 } + if high { 0x60 } else { 0 };
    // OF is undefined; AMD's processors set it as the addition does.
    let (result, status) = if DOWN {
        flags::subtract::<1>(old, correction, 0)
    } else {
        flags::add::<1>(old, correction, 0)
    };
    // DAS also reports the borrow of its first step.
    let borrowed = DOWN && low && old < 6;
    exec.set_number::<1>(Cpu::RAX, result);
    let carries = flag_if(low, AF) | flag_if(high || borrowed, CF);
    exec.cpu.set_status(status & !(AF | CF) | carries);
    Ok(())
}

/// `AAA` and (`DOWN`) `AAS`.
fn adjust_unpacked<const DOWN: bool>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let old = exec.accumulator::<2>();
    let adjust = old & 0xf > 9 || exec.cpu.rflags & AF != 0;
    let correction = if adjust { 0x106 } else { 0 };
    // The undefined flags are those of the addition of 16 bits on AMD's processors.
    let (result, status) = if DOWN {
        flags::subtract::<2>(old, correction, 0)
    } else {
        flags::add::<2>(old, correction, 0)
    };
    exec.set_number::<2>(Cpu::RAX, result & 0xff0f);
    exec.cpu
        .set_status(status & !(AF | CF) | flag_if(adjust, AF | CF));
    Ok(())
}

fn aam(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let base = u64::from(instruction.immediate8());
    let al = exec.accumulator::<1>();
    let (Some(tens), Some(ones)) = (al.checked_div(base), al.checked_rem(base)) else {
        return Err(Exception::DIVIDE);
    };
    exec.set_number::<2>(Cpu::RAX, tens << 8 | ones);
    exec.cpu.set_status(flags::of_result::<1>(ones));
    Ok(())
}

fn aad(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let base = u64::from(instruction.immediate8());
    let tens = (exec.gpr(Register::AH) * base) & 0xff;
    // The undefined flags are those of the addition on AMD's processors.
    let (result, status) = flags::add::<1>(exec.accumulator::<1>(), tens, 0);
    exec.set_number::<2>(Cpu::RAX, result);
    exec.cpu.set_status(status);
    Ok(())
}

/// AL becomes all ones or zero, as CF is.
fn salc(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let carry = exec.cpu.rflags & CF != 0;
    exec.set_number::<1>(Cpu::RAX, if carry { 0xff } else { 0 });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::flags::{PF, SF, ZF};
    use crate::testing::integer::*;

    /// AX after an instruction on AX, and the status flags.
    fn computed(code: &[u8], ax: u64, status: u64) -> (u64, u64) {
        let mut machine = Machine::new(32);
        machine.cpu.gpr[Cpu::RAX] = ax;
        machine.cpu.set_status(status);
        machine.run(code).unwrap();
        (machine.cpu.gpr[Cpu::RAX], machine.status())
    }

    #[test]
    fn packed_sums_and_differences_become_decimal() {
        assert_eq!(computed(&[0x27], 0xae, 0), (0x14, CF | AF | PF));
        assert_eq!(computed(&[0x27], 0x2e, 0), (0x34, AF));
        assert_eq!(computed(&[0x2f], 0xee, 0), (0x88, CF | AF | SF | PF));
        assert_eq!(computed(&[0x2f], 0x03, AF), (0xfd, CF | AF | SF));
    }

    #[test]
    fn unpacked_sums_and_differences_carry_into_ah() {
        assert_eq!(computed(&[0x37], 0x00fb, 0).0, 0x0201);
        assert_eq!(computed(&[0x37], 0x0015, 0), (0x0005, 0));
        assert_eq!(computed(&[0x3f], 0x0105, AF).0, 0xff0f);
    }

    #[test]
    fn products_and_dividends_are_split_and_joined_at_any_base() {
        assert_eq!(computed(&[0xd4, 10], 0x99, 0), (0x0f03, PF));
        assert_eq!(computed(&[0xd5, 10], 0x0307, 0), (37, AF));
        assert_eq!(computed(&[0xd4, 16], 0x40, 0), (0x0400, ZF | PF));
    }

    #[test]
    fn split_at_base_zero_is_a_divide_error() {
        let mut machine = Machine::new(32);
        assert_eq!(machine.run(&[0xd4, 0]), Err(Exception::DIVIDE));
    }

    #[test]
    fn salc_spreads_the_carry_and_64_bit_code_knows_none_of_this() {
        assert_eq!(computed(&[0xd6], 0x1234, CF).0, 0x12ff);
        assert_eq!(computed(&[0xd6], 0x1234, 0).0, 0x1200);
        for code in [0x27, 0x2f, 0x37, 0x3f, 0xd4, 0xd5, 0xd6] {
            assert_eq!(Machine::new(64).run(&[code, 10]), Err(Exception::UNDEFINED));
        }
    }
}
