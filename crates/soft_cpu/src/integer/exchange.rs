//! Exchanges, which are atomic by themselves or with a LOCK prefix.

use iced_x86::{Instruction, Mnemonic};

use super::flags::{self, ZF, flag_if};
use super::operands::{by_size, is_register, size_of};
use crate::cpu::Cpu;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};
use crate::memory::Access;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match instruction.mnemonic() {
        Mnemonic::Xchg if is_register(instruction, 0) => by_size!(size, exchange_registers),
        Mnemonic::Xchg => by_size!(size, exchange_memory),
        Mnemonic::Xadd => by_size!(size, exchange_add),
        Mnemonic::Cmpxchg => by_size!(size, compare_exchange),
        Mnemonic::Cmpxchg8b => Some(compare_exchange_8),
        Mnemonic::Cmpxchg16b => Some(compare_exchange_16),
        _ => None,
    }
}

fn exchange_registers<const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let (one, other) = (instruction.op0_register(), instruction.op1_register());
    let (a, b) = (exec.register::<S>(one), exec.register::<S>(other));
    exec.set_register::<S>(one, b);
    exec.set_register::<S>(other, a);
    Ok(())
}

/// Always locked (Intel SDM vol. 3, 8.1.2.1).
fn exchange_memory<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let register = instruction.op1_register();
    let new = exec.register::<S>(register);
    let (old, _) = exec.update_operand::<S>(instruction, true, |_| new)?;
    exec.set_register::<S>(register, old);
    Ok(())
}

/// The sum goes to operand 0 last: it stays where both are the same register.
fn exchange_add<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let addend = exec.register::<S>(instruction.op1_register());
    let old = exec.update_sized::<S>(instruction, |old| flags::add::<S>(old, addend, 0).0)?;
    let (sum, status) = flags::add::<S>(old, addend, 0);
    exec.set_register::<S>(instruction.op1_register(), old);
    if is_register(instruction, 0) {
        exec.set_register::<S>(instruction.op0_register(), sum);
    }
    exec.cpu.set_status(status);
    Ok(())
}

fn compare_exchange<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let expected = exec.accumulator::<S>();
    let new = exec.register::<S>(instruction.op1_register());
    let old = if is_register(instruction, 0) {
        exec.register::<S>(instruction.op0_register())
    } else {
        let exchange = |old| if old == expected { new } else { old };
        exec.update_operand::<S>(instruction, instruction.has_lock_prefix(), exchange)?
            .0
    };
    if old == expected && is_register(instruction, 0) {
        exec.set_register::<S>(instruction.op0_register(), new);
    }
    if old != expected {
        exec.set_number::<S>(Cpu::RAX, old);
    }
    exec.cpu.set_status(flags::subtract::<S>(expected, old, 0).1);
    Ok(())
}

fn set_equal(exec: &mut Exec<'_>, equal: bool) {
    exec.cpu.rflags = exec.cpu.rflags & !ZF | flag_if(equal, ZF);
}

fn compare_exchange_8(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let pair = |exec: &Exec<'_>, high, low| exec.number::<4>(high) << 32 | exec.number::<4>(low);
    let expected = pair(exec, Cpu::RDX, Cpu::RAX);
    let new = pair(exec, Cpu::RCX, Cpu::RBX);
    let locked = instruction.has_lock_prefix();
    let exchange = |old| if old == expected { new } else { old };
    let (old, _) = exec.update_operand::<8>(instruction, locked, exchange)?;
    if old != expected {
        exec.set_number::<4>(Cpu::RAX, old);
        exec.set_number::<4>(Cpu::RDX, old >> 32);
    }
    set_equal(exec, old == expected);
    Ok(())
}

/// Misaligned it is #GP, whatever the flags say.
fn compare_exchange_16(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let pair = |exec: &Exec<'_>, high: usize, low: usize| {
        u128::from(exec.cpu.gpr[high]) << 64 | u128::from(exec.cpu.gpr[low])
    };
    let expected = pair(exec, Cpu::RDX, Cpu::RAX);
    let new = pair(exec, Cpu::RCX, Cpu::RBX);
    let (segment, offset) = exec.effective_address(instruction);
    let linear = exec.linear(segment, offset, 16, Access::Write)?;
    if linear % 16 != 0 {
        return Err(Exception::PROTECTION);
    }
    let old = exec.linear_compare_exchange_16(exec.cpu.mode.set, linear, expected, new)?;
    if old != expected {
        exec.cpu.gpr[Cpu::RAX] = old as u64;
        exec.cpu.gpr[Cpu::RDX] = (old >> 64) as u64;
    }
    set_equal(exec, old == expected);
    Ok(())
}
