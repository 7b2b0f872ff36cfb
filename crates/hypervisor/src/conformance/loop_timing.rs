//! How fast a backend runs 64-bit code where a kernel has its own.

use std::time::{Duration, Instant};

use super::guest::{Failure, Guest, KERNEL_HALF, Mode, run_limited};
use super::programs;
use crate::x86_64::GeneralRegisters;
use crate::{Hypervisor, StopReason};

/// Where Linux's own code begins, less its first pages, in the kernel half.
const KERNEL_CODE: u64 = KERNEL_HALF + 0x101_0000;

/// How a counted loop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopTime {
    /// It ran to its end in this time.
    Done(Duration),
    /// The watchdog stopped it.
    TooSlow,
}

/// Times `iterations` of `dec ecx; jnz` in 64-bit mode at 0xffffffff81010000, for at most `limit`.
///
/// # Errors
/// One sentence: the backend cannot make such a guest, or stops it in another way.
pub fn time_counted_loop(
    hypervisor: &dyn Hypervisor,
    iterations: u32,
    limit: Duration,
) -> Result<LoopTime, Failure> {
    let mut guest = Guest::new(hypervisor, Mode::Long, programs::COUNTED_LOOP)?;
    guest.change_state(|state| {
        state.general.rip = KERNEL_CODE;
        state.general.gpr[GeneralRegisters::RCX] = iterations.into();
    })?;
    let start = Instant::now();
    let (stopped, late) = run_limited(&mut *guest.vcpu, &guest.recorder, limit);
    let elapsed = start.elapsed();
    match stopped.map_err(super::guest::chain)? {
        _ if late => Ok(LoopTime::TooSlow),
        StopReason::Kicked => Ok(LoopTime::Done(elapsed)),
        other => Err(format!("a counted loop stopped with {other:?}")),
    }
}
