//! The timer: counts at 1 GHz through its divider, or waits for the time-stamp counter.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hypervisor::x86_64::LocalApic;

use super::registers::MASKED;
use super::{Apic, State};
use crate::attention::EVENT;

/// The timer's mode, bits 18 and 17 of its local vector.
const MODE: u32 = 3 << 17;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 2 << 17;

/// A thread that waits for the earliest moment it was told, started when it is first told one.
#[derive(Debug)]
pub(super) struct Timer {
    shared: Arc<Shared>,
    apic: Weak<Apic>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    alarm: Mutex<Alarm>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Alarm {
    at: Option<Instant>,
    closing: bool,
}

impl Timer {
    pub(super) fn new(apic: Weak<Apic>) -> Self {
        Self {
            shared: Arc::default(),
            apic,
            thread: Mutex::new(None),
        }
    }

    /// Sets the alarm. One that moves to later is noticed when the earlier one is over, which costs no wake-up.
    fn set(&self, at: Option<Instant>) {
        let mut alarm = self.shared.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = match (alarm.at, at) {
            (Some(now), Some(at)) => at < now,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        alarm.at = at;
        drop(alarm);
        if earlier {
            self.start();
            self.shared.changed.notify_one();
        }
    }

    fn start(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let (shared, apic) = (self.shared.clone(), self.apic.clone());
            let spawned = std::thread::Builder::new()
                .name("apic-timer".to_owned())
                .spawn(move || shared.run(&apic));
            match spawned {
                Ok(handle) => *thread = Some(handle),
                // The vCPU still finds deadlines over while it is halted.
                Err(error) => tracing::warn!(%error, "the local APIC's timer has no thread"),
            }
        }
    }
}

impl Shared {
    fn run(&self, apic: &Weak<Apic>) {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        while !alarm.closing {
            let now = Instant::now();
            match alarm.at {
                None => alarm = self.changed.wait(alarm).unwrap_or_else(PoisonError::into_inner),
                Some(at) if at > now => {
                    alarm = self
                        .changed
                        .wait_timeout(alarm, at - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                Some(_) => {
                    alarm.at = None;
                    drop(alarm);
                    let Some(apic) = apic.upgrade() else { return };
                    apic.expire(now);
                    // Should this be the last handle, its end must not wait for this thread.
                    drop(apic);
                    alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.shared
            .alarm
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closing = true;
        self.shared.changed.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // It only waits; a panic in it has been printed.
            let _ = thread.join();
        }
    }
}

impl Apic {
    /// Nanoseconds for one step of the count (11.5.4).
    fn step(state: &State) -> u64 {
        let divide = state.registers.get(LocalApic::TIMER_DIVIDE);
        match divide & 3 | divide >> 1 & 4 {
            7 => 1,
            shift => 2 << shift,
        }
    }

    /// Begins to count down from `count`.
    pub(super) fn start_counting(&self, state: &mut State, count: u32) {
        state.started = Instant::now();
        let counts = state.registers.get(LocalApic::LVT_TIMER) & MODE != TSC_DEADLINE && count != 0;
        let length = Duration::from_nanos(u64::from(count) * Self::step(state));
        state.deadline = counts.then(|| state.started + length);
        // The alarm is set while the state is held: two of these never overtake each other.
        self.timer.set(state.deadline);
    }

    /// The current-count register.
    pub(super) fn current_count(&self, state: &State) -> u32 {
        let tsc_mode = state.registers.get(LocalApic::LVT_TIMER) & MODE == TSC_DEADLINE;
        let Some(deadline) = state.deadline.filter(|_| !tsc_mode) else {
            return 0;
        };
        let left = deadline.saturating_duration_since(Instant::now()).as_nanos() as u64;
        u32::try_from(left / Self::step(state)).unwrap_or(u32::MAX)
    }

    /// A store to the timer's local vector: a change of mode disarms it.
    pub(super) fn local_timer_changed(&self, state: &mut State, before: u32) {
        if (state.registers.get(LocalApic::LVT_TIMER) ^ before) & MODE != 0 {
            (state.deadline, state.tsc_deadline) = (None, 0);
            self.timer.set(None);
        }
    }

    /// IA32_TSC_DEADLINE; 0 where it is disarmed or the timer is in another mode.
    pub(crate) fn tsc_deadline(&self) -> u64 {
        self.state().tsc_deadline
    }

    /// Arms the timer for a moment of the time-stamp counter; 0 disarms. Ignored in other modes (11.5.4.1).
    pub(crate) fn set_tsc_deadline(&self, ticks: u64) {
        let mut state = self.state();
        if state.registers.get(LocalApic::LVT_TIMER) & MODE != TSC_DEADLINE {
            return;
        }
        state.tsc_deadline = ticks;
        state.deadline = (ticks != 0).then(|| self.tsc.moment(ticks));
        self.timer.set(state.deadline);
    }

    /// Raises the timer's interrupt where its time is over. Also called by a vCPU that slept until then.
    pub(crate) fn expire(&self, now: Instant) {
        let mut state = self.state();
        let Some(deadline) = state.deadline else { return };
        if deadline > now {
            self.timer.set(state.deadline);
            return;
        }
        let local = state.registers.get(LocalApic::LVT_TIMER);
        let period = Duration::from_nanos(
            u64::from(state.registers.get(LocalApic::TIMER_INITIAL)) * Self::step(&state),
        );
        if local & MODE == PERIODIC && !period.is_zero() {
            // Periods that nobody could see end are skipped.
            let late = now.duration_since(deadline).as_nanos() / period.as_nanos();
            state.started = deadline + period * u32::try_from(late).unwrap_or(u32::MAX);
            state.deadline = Some(state.started + period);
        } else {
            (state.deadline, state.tsc_deadline) = (None, 0);
        }
        self.timer.set(state.deadline);
        let raised = local & MASKED == 0 && state.registers.request(local as u8, false);
        drop(state);
        if raised {
            self.attention.post(EVENT);
        }
    }
}
