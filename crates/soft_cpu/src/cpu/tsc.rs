//! The time-stamp counter: one tick is a nanosecond of the host's monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Its frequency.
pub(crate) const TSC_KHZ: u32 = 1_000_000;

/// Counters set from outside to values that differ by less than this, in ticks, are meant to be in step: they were read
/// one after the other, and are set one after the other.
const IN_STEP: u64 = 1_000_000_000;

/// Where the counters of one VM begin.
#[derive(Debug)]
pub(crate) struct TscEpoch {
    start: Instant,
    /// What was last set from outside, as an offset.
    offset: AtomicU64,
    /// What the paravirtual clock showed then.
    clock: AtomicU64,
}

impl TscEpoch {
    /// They are 0 now.
    pub(crate) fn now() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            offset: AtomicU64::new(0),
            clock: AtomicU64::new(0),
        })
    }

    fn elapsed(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The paravirtual clock, in nanoseconds: the same for all vCPUs, whatever their counters are set to.
    pub(crate) fn clock(&self) -> u64 {
        self.clock.load(Ordering::Relaxed).wrapping_add(self.elapsed())
    }

    /// Sets the paravirtual clock.
    pub(crate) fn set_clock(&self, nanoseconds: u64) {
        self.clock
            .store(nanoseconds.wrapping_sub(self.elapsed()), Ordering::Relaxed);
    }
}

/// One vCPU's counter, shared with its local APIC. All vCPUs of a VM start from the same moment.
#[derive(Debug)]
pub(crate) struct TscClock {
    epoch: Arc<TscEpoch>,
    offset: AtomicU64,
}

impl TscClock {
    /// A counter that was 0 at `epoch`.
    pub(crate) fn new(epoch: Arc<TscEpoch>) -> Self {
        Self {
            epoch,
            offset: AtomicU64::new(0),
        }
    }

    /// Sets the counter from outside, in step with those of the VM's other vCPUs that were set to about the same.
    pub(crate) fn restore(&self, ticks: u64) {
        let wanted = ticks.wrapping_sub(self.since_epoch());
        let last = self.epoch.offset.load(Ordering::Relaxed);
        let apart = wanted.wrapping_sub(last);
        let in_step = apart.min(apart.wrapping_neg()) < IN_STEP;
        let offset = if in_step { last } else { wanted };
        self.epoch.offset.store(offset, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
    }

    fn since_epoch(&self) -> u64 {
        self.epoch.elapsed()
    }

    /// The paravirtual clock at a reading of this counter: that reading, and the clock.
    pub(crate) fn clock_at(&self) -> (u64, u64) {
        (
            self.offset.load(Ordering::Relaxed),
            self.epoch.clock.load(Ordering::Relaxed),
        )
    }

    /// The paravirtual clock now.
    pub(crate) fn clock(&self) -> u64 {
        self.epoch.clock()
    }

    /// The counter now.
    pub(crate) fn now(&self) -> u64 {
        self.since_epoch()
            .wrapping_add(self.offset.load(Ordering::Relaxed))
    }

    /// Moves the counter.
    pub(crate) fn advance(&self, ticks: u64) {
        self.offset.fetch_add(ticks, Ordering::Relaxed);
    }

    /// When the counter will be, or was, at `ticks`; a moment too far to name is a century away.
    pub(crate) fn moment(&self, ticks: u64) -> Instant {
        const CENTURY: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;
        let left = ticks.saturating_sub(self.now()).min(CENTURY);
        Instant::now() + Duration::from_nanos(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restored_counters_of_one_vm_are_in_step() {
        let epoch = TscEpoch::now();
        let clocks = [(); 2].map(|()| TscClock::new(epoch.clone()));

        clocks[0].restore(1 << 50);
        clocks[1].restore((1 << 50) + 20_000);

        assert!(clocks[0].now() >= 1 << 50);
        assert_eq!(
            clocks[0].offset.load(Ordering::Relaxed),
            clocks[1].offset.load(Ordering::Relaxed)
        );
    }

    #[test]
    fn clock_goes_on_from_where_it_is_set_whatever_the_counter_shows() {
        let epoch = TscEpoch::now();
        let counter = TscClock::new(epoch.clone());
        counter.restore(1 << 50);
        epoch.set_clock(7_000_000_000);

        let (counted, shown) = counter.clock_at();
        let by_the_counter = counter.now().wrapping_sub(counted).wrapping_add(shown);

        assert!((7_000_000_000..8_000_000_000).contains(&by_the_counter));
        assert!((by_the_counter..8_000_000_000).contains(&counter.clock()));
    }
}
