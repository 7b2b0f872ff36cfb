//! The local APIC (Intel SDM vol. 3, chapter 11), in xAPIC and x2APIC mode.

mod delivery;
mod registers;
mod timer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use hypervisor::x86_64::LocalApic;

pub(crate) use delivery::Interconnect;
use registers::Registers;
use timer::Timer;

use crate::attention::{Attention, EVENT};
use crate::cpu::TscClock;

/// What waits for a vCPU besides interrupts, taken by its loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signals {
    /// Back to the state after reset, to wait for a start-up interrupt.
    pub(crate) init: bool,
    /// A start-up interrupt with this vector.
    pub(crate) startup: Option<u8>,
    /// A non-maskable interrupt.
    pub(crate) nmi: bool,
}

/// The local APIC of one vCPU.
#[derive(Debug)]
pub(crate) struct Apic {
    id: u32,
    state: Mutex<State>,
    timer: Timer,
    tsc: Arc<TscClock>,
    attention: Arc<Attention>,
    others: Weak<Interconnect>,
}

#[derive(Debug)]
struct State {
    registers: Registers,
    signals: Signals,
    /// When the timer fires next.
    deadline: Option<Instant>,
    /// When the count began, for reading how far it is.
    started: Instant,
    /// IA32_TSC_DEADLINE.
    tsc_deadline: u64,
}

impl Apic {
    /// The local APIC of vCPU `id`, after reset.
    pub(crate) fn new(
        id: u32,
        tsc: Arc<TscClock>,
        attention: Arc<Attention>,
        others: Weak<Interconnect>,
    ) -> Arc<Self> {
        let state = State {
            registers: Registers::reset(id),
            signals: Signals::default(),
            deadline: None,
            started: Instant::now(),
            tsc_deadline: 0,
        };
        Arc::new_cyclic(|me: &Weak<Self>| Self {
            id,
            state: Mutex::new(state),
            timer: Timer::new(me.clone()),
            tsc,
            attention,
            others,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The vCPU's time-stamp counter.
    pub(crate) fn tsc(&self) -> &TscClock {
        &self.tsc
    }

    /// Where its vCPU is called.
    pub(crate) fn attention(&self) -> &Arc<Attention> {
        &self.attention
    }

    /// Whether an interrupt waits that the priorities let through.
    pub(crate) fn has_deliverable(&self) -> bool {
        self.state().registers.deliverable().is_some()
    }

    /// Takes the interrupt that is due: from requested to in service.
    pub(crate) fn acknowledge(&self) -> Option<u8> {
        let mut state = self.state();
        let vector = state.registers.deliverable()?;
        state.registers.start_service(vector);
        Some(vector)
    }

    /// Takes what waits besides interrupts.
    pub(crate) fn take_signals(&self) -> Signals {
        std::mem::take(&mut self.state().signals)
    }

    /// When the timer will fire, where it is running.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.state().deadline
    }

    /// Makes an interrupt wait. Dropped where software has switched the APIC off.
    pub(crate) fn request(&self, vector: u8, level: bool) {
        if self.state().registers.request(vector, level) {
            self.attention.post(EVENT);
        }
    }

    fn signal(&self, change: impl FnOnce(&mut Signals)) {
        change(&mut self.state().signals);
        self.attention.post(EVENT);
    }

    /// The task priority as CR8 has it, 0 to 15.
    pub(crate) fn tpr(&self) -> u8 {
        (self.state().registers.get(LocalApic::TPR) >> 4) as u8 & 0xf
    }

    /// Sets it so.
    pub(crate) fn set_tpr(&self, priority: u8) {
        self.state()
            .registers
            .set(LocalApic::TPR, u32::from(priority & 0xf) << 4);
        self.attention.post(EVENT);
    }

    /// Back to the state after INIT (Intel SDM vol. 3, 11.4.7.3): all but the id and the base.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        let base = state.registers.base;
        state.registers = Registers::reset(self.id);
        state.registers.base = base;
        (state.deadline, state.tsc_deadline) = (None, 0);
    }

    /// IA32_APIC_BASE.
    pub(crate) fn base(&self) -> u64 {
        self.state().registers.base
    }

    /// Sets IA32_APIC_BASE without the checks of a guest's store.
    pub(crate) fn set_base(&self, base: u64) {
        self.state().registers.base = base;
    }

    /// The register page, as the state table has it.
    pub(crate) fn registers(&self) -> LocalApic {
        let state = self.state();
        let mut page = state.registers.page.clone();
        page.registers[LocalApic::PPR] = state.registers.processor_priority();
        let count = self.current_count(&state);
        // A count that is over and whose interrupt is not requested yet must not be lost: zero would be a timer at rest.
        let counts = state.deadline.is_some() && state.tsc_deadline == 0;
        page.registers[LocalApic::TIMER_CURRENT] = if counts { count.max(1) } else { count };
        page
    }

    /// Sets the register page; the timer starts anew from the count it had left. What kind of APIC this is stays.
    pub(crate) fn set_registers(&self, page: &LocalApic) {
        let mut state = self.state();
        let version = state.registers.get(LocalApic::VERSION);
        state.registers.page = page.clone();
        state.registers.set(LocalApic::VERSION, version);
        state.tsc_deadline = 0;
        self.start_counting(&mut state, page.registers[LocalApic::TIMER_CURRENT]);
        drop(state);
        self.attention.post(EVENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::TscEpoch;

    #[test]
    fn count_that_is_over_and_not_requested_yet_is_saved_as_one() {
        let tsc = Arc::new(TscClock::new(TscEpoch::now()));
        let apic = Apic::new(0, tsc, Arc::default(), Weak::new());
        let saved = || apic.registers().registers[LocalApic::TIMER_CURRENT];
        assert_eq!(saved(), 0);

        // Nobody has looked at it since.
        apic.state().deadline = Some(Instant::now());

        assert_eq!(saved(), 1);
    }
}
