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
