//! What has no result: hints, fences, cache control; single flags; random numbers.

use std::sync::atomic::{Ordering, fence};

use iced_x86::{Instruction, Mnemonic};

use super::flags::{CF, DF};
use super::operands::{by_word_size, size_of};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};
use crate::memory::Access;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    use Mnemonic as M;
    let handler: Handler = match instruction.mnemonic() {
        // CET is shown to no guest: without it these are no-operations.
        M::Nop | M::Reservednop | M::Pause | M::Endbr32 | M::Endbr64 => nothing,
        M::Prefetch | M::Prefetchw | M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 => {
            nothing
        }
        M::Lfence | M::Mfence | M::Sfence | M::Serialize => order,
        M::Clflush | M::Clflushopt | M::Clwb => touch,
        M::Clc => |exec, _| set_flag(exec, CF, 0),
        M::Stc => |exec, _| set_flag(exec, CF, CF),
        M::Cmc => |exec, _| set_flag(exec, CF, !exec.cpu.rflags & CF),
        M::Cld => |exec, _| set_flag(exec, DF, 0),
        M::Std => |exec, _| set_flag(exec, DF, DF),
        M::Rdrand | M::Rdseed => return by_word_size!(size_of(instruction, 0), random),
        _ => return None,
    };
    Some(handler)
}

fn nothing(_: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    Ok(())
}

/// Other vCPUs are other threads: the host's fence is the guest's.
fn order(_: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    fence(Ordering::SeqCst);
    Ok(())
}

/// There is no cache, but the address is checked as that of a load of a byte.
fn touch(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let (segment, offset) = exec.effective_address(instruction);
    let linear = exec.linear(segment, offset, 1, Access::Read)?;
    exec.linear_probe(exec.cpu.mode.set, linear, 1, Access::Read)
}

fn set_flag(exec: &mut Exec<'_>, flag: u64, value: u64) -> Result<(), Exception> {
    exec.cpu.rflags = exec.cpu.rflags & !flag | value;
    Ok(())
}

/// CF says whether there was a number; without one the destination is zero.
fn random<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let mut bytes = [0; 8];
    let status = match host_os::random_bytes(&mut bytes) {
        Ok(()) => CF,
        Err(_) => {
            bytes = [0; 8];
            0
        }
    };
    exec.set_register::<S>(instruction.op0_register(), u64::from_le_bytes(bytes));
    exec.cpu.set_status(status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::testing::integer::*;

    #[test]
    fn hints_do_nothing_whatever_they_name() {
        let mut machine = Machine::new(64);
        let before = machine.cpu.gpr;
        for code in [
            &[0x90][..],
            &[0xf3, 0x90],
            &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0x80],
            &[0xf3, 0x0f, 0x1e, 0xfa],
            &[0xf3, 0x48, 0x0f, 0x1e, 0xc8],
            &[0x0f, 0x0d, 0x0b],
            &[0x0f, 0x18, 0x03],
            &[0x0f, 0xae, 0xe8],
            &[0x0f, 0xae, 0xf0],
            &[0x0f, 0xae, 0xf8],
            &[0x0f, 0x01, 0xe8],
        ] {
            machine.run(code).unwrap();
            assert_eq!(machine.passed(), code.len() as u64, "{code:02x?}");
        }
        assert_eq!((machine.cpu.gpr, machine.cpu.rflags), (before, 2));
    }

    #[test]
    fn cache_control_of_a_missing_page_faults_as_a_load() {
        let mut machine = Machine::new(32);
        machine.page_without(DATA);
        machine.cpu.gpr[Cpu::RSI] = DATA + 5;
        for code in [
            &[0x0f, 0xae, 0x3e][..],
            &[0x66, 0x0f, 0xae, 0x3e],
            &[0x66, 0x0f, 0xae, 0x36],
        ] {
            assert_eq!(
                machine.run(code),
                Err(Exception::page_fault(DATA + 5, 0)),
                "{code:02x?}"
            );
        }
    }

    #[test]
    fn single_flags_are_set_cleared_and_complemented() {
        let mut machine = Machine::new(64);
        for (code, flags) in [
            (0xf9, CF),
            (0xfd, CF | DF),
            (0xf5, DF),
            (0xf5, CF | DF),
            (0xfc, CF),
            (0xf8, 0),
        ] {
            machine.run(&[code]).unwrap();
            assert_eq!(machine.cpu.rflags, flags | 2, "{code:#x}");
        }
    }

    #[test]
    fn random_numbers_come_with_a_carry_and_differ() {
        let mut machine = Machine::new(64);
        machine.run(&[0x48, 0x0f, 0xc7, 0xf0]).unwrap();
        machine.run(&[0x48, 0x0f, 0xc7, 0xfb]).unwrap();
        assert_ne!(machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RBX]);
        assert_eq!(machine.status(), CF);
    }

    #[test]
    fn instructions_that_are_undefined_by_name_raise_it() {
        let mut machine = Machine::new(64);
        for code in [&[0x0f, 0x0b][..], &[0x0f, 0xb9, 0xc0], &[0x0f, 0xff, 0xc0]] {
            assert_eq!(machine.run(code), Err(Exception::UNDEFINED), "{code:02x?}");
        }
    }
}
