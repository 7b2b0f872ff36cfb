//! The time-stamp counter: one tick is a nanosecond of the host's monotonic clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Its frequency.
pub(crate) const TSC_KHZ: u32 = 1_000_000;

/// One vCPU's counter, shared with its local APIC. All vCPUs of a VM start from the same moment.
#[derive(Debug)]
pub(crate) struct TscClock {
    epoch: Instant,
    offset: AtomicU64,
}

impl TscClock {
    /// A counter that was 0 at `epoch`.
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            offset: AtomicU64::new(0),
        }
    }

    fn since_epoch(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The counter now.
    pub(crate) fn now(&self) -> u64 {
        self.since_epoch()
            .wrapping_add(self.offset.load(Ordering::Relaxed))
    }

    /// Sets the counter.
    pub(crate) fn set(&self, ticks: u64) {
        self.offset
            .store(ticks.wrapping_sub(self.since_epoch()), Ordering::Relaxed);
    }

    /// When the counter will be, or was, at `ticks`; a moment too far to name is a century away.
    pub(crate) fn moment(&self, ticks: u64) -> Instant {
        const CENTURY: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;
        let left = ticks.saturating_sub(self.now()).min(CENTURY);
        Instant::now() + Duration::from_nanos(left)
    }
}
