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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::flags::{AF, CF, PF, SF};
    use crate::testing::integer::*;

    #[test]
    fn xchg_swaps_registers_and_memory() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, 1), (Cpu::RBX, 1 << 40 | 2), (Cpu::RSI, DATA)]);
        machine.set_quad(DATA, 3);

        machine.run(&[0x93]).unwrap();
        machine.run(&[0x48, 0x87, 0x1e]).unwrap();

        assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RBX]), (2, 3));
        assert_eq!(machine.quad(DATA), 1);
    }

    #[test]
    fn xadd_leaves_the_sum_where_both_operands_are_one_register() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, 5), (Cpu::RBX, 7)]);
        machine.run(&[0x48, 0x0f, 0xc1, 0xc0]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RAX], 10);
        machine.run(&[0x48, 0x0f, 0xc1, 0xd8]).unwrap();
        assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RBX]), (17, 10));
    }

    #[test]
    fn cmpxchg_stores_or_loads_the_accumulator() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, 5), (Cpu::RBX, 7), (Cpu::RSI, DATA)]);
        machine.set_quad(DATA, 5);

        machine.run(&[0xf0, 0x48, 0x0f, 0xb1, 0x1e]).unwrap();
        assert_eq!((machine.quad(DATA), machine.status()), (7, ZF | PF));
        machine.run(&[0xf0, 0x48, 0x0f, 0xb1, 0x1e]).unwrap();
        assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.status()), (7, CF | AF | SF));
    }

    #[test]
    fn cmpxchg_of_registers_that_differ_writes_the_accumulator_alone() {
        let mut machine = Machine::new(64);
        let wide = 1 << 40;
        machine.set_gprs(&[(Cpu::RAX, wide | 1), (Cpu::RCX, wide | 2), (Cpu::RBX, 3)]);
        machine.run(&[0x0f, 0xb1, 0xd9]).unwrap();
        assert_eq!(
            (machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RCX]),
            (2, wide | 2)
        );
        machine.run(&[0x0f, 0xb1, 0xd9]).unwrap();
        assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RCX]), (2, 3));
    }

    #[test]
    fn wide_exchanges_compare_two_registers() {
        for (code, half) in [
            (&[0xf0, 0x0f, 0xc7, 0x0e][..], 4),
            (&[0xf0, 0x48, 0x0f, 0xc7, 0x0e], 8),
        ] {
            let mut machine = Machine::new(64);
            machine.cpu.gpr[..4].copy_from_slice(&[1, 4, 2, 3]);
            machine.cpu.gpr[Cpu::RSI] = DATA;
            machine.set_bytes(DATA, &[1]);
            machine.set_bytes(DATA + half, &[2]);

            machine.run(code).unwrap();
            let stored = (
                machine.bytes(DATA, 1),
                machine.bytes(DATA + half, 1),
                machine.status(),
            );
            machine.run(code).unwrap();

            assert_eq!(stored, (vec![3], vec![4], ZF));
            assert_eq!(
                (
                    machine.cpu.gpr[Cpu::RAX],
                    machine.cpu.gpr[Cpu::RDX],
                    machine.status()
                ),
                (3, 4, 0)
            );
        }
    }

    #[test]
    fn cmpxchg16b_of_a_misaligned_address_is_protected() {
        let mut machine = Machine::new(64);
        machine.cpu.gpr[Cpu::RSI] = DATA + 8;
        assert_eq!(machine.run(&[0x48, 0x0f, 0xc7, 0x0e]), Err(Exception::PROTECTION));
    }

    #[test]
    fn exchanges_over_the_end_of_a_page_work() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RSI, DATA + 0xffc), (Cpu::RAX, 0x1122_3344_5566_7788)]);
        machine.run(&[0x48, 0x87, 0x06]).unwrap();
        assert_eq!(machine.quad(DATA + 0xffc), 0x1122_3344_5566_7788);
    }
}
