//! How fast a backend runs 64-bit code where a kernel has its own.

use std::time::{Duration, Instant};

use super::guest::{Failure, Guest, KERNEL_HALF, Mode, chain, run_limited};
use super::programs;
use crate::x86_64::GeneralRegisters;
use crate::{Hypervisor, StopReason};

/// Where the loop's copy in the kernel half lies: 0xffffffff81010000, just behind where Linux begins.
const KERNEL_CODE: u64 = KERNEL_HALF + 0x101_0000;

/// A guest whose program counts ECX down, made once and run as often as wanted.
pub struct CountedLoop {
    guest: Guest,
}

/// How one run of a counted loop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopTime {
    /// It ran to its end in this time.
    Done(Duration),
    /// The watchdog stopped it.
    TooSlow,
}

impl CountedLoop {
    /// Makes the guest.
    ///
    /// # Errors
    /// One sentence: what the backend cannot do.
    pub fn new(hypervisor: &dyn Hypervisor) -> Result<Self, String> {
        Ok(Self {
            guest: Guest::new(hypervisor, Mode::Long, programs::COUNTED_LOOP)?,
        })
    }

    /// Times `iterations` of `dec ecx; jnz` in 64-bit mode in the kernel half, for at most `limit`.
    ///
    /// # Errors
    /// One sentence: how else the backend stopped.
    pub fn time(&mut self, iterations: u32, limit: Duration) -> Result<LoopTime, Failure> {
        self.guest.change_state(|state| {
            state.general.rip = KERNEL_CODE;
            state.general.gpr[GeneralRegisters::RCX] = iterations.into();
        })?;
        let start = Instant::now();
        let (stopped, late) = run_limited(&mut *self.guest.vcpu, &self.guest.recorder, limit);
        let elapsed = start.elapsed();
        match stopped.map_err(chain)? {
            _ if late => Ok(LoopTime::TooSlow),
            StopReason::Kicked => Ok(LoopTime::Done(elapsed)),
            other => Err(format!("a counted loop stopped with {other:?}")),
        }
    }
}
