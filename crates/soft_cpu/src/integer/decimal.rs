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
    let tens = exec.gpr(Register::AH) * base & 0xff;
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
