//! One vCPU: its loop between guest code and what happens to it.

use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use hypervisor::x86_64::{Activity, CpuState, CpuStateAccess};
use hypervisor::{Error, GuestIo, KeptCode, Kick, StopReason, Vcpu};

use crate::attention::{Attention, CODE_CHANGED, EVENT, FORGET_WRITES, KICK, PAUSE, SAMPLE};
use crate::cpu::{Cpu, SegReg, flags};
use crate::exception::Exception;
use crate::exec::Exec;
use crate::observe::{Tier, TracedIo};
use crate::system::TripleFault;
use crate::vm::Shared;

/// A vCPU and the VM it belongs to.
pub(crate) struct SoftVcpu {
    pub(crate) cpu: Box<Cpu>,
    shared: Arc<Shared>,
}

impl SoftVcpu {
    pub(crate) fn new(cpu: Box<Cpu>, shared: Arc<Shared>) -> Self {
        Self { cpu, shared }
    }
}

impl Vcpu for SoftVcpu {
    fn run(&mut self, io: &dyn GuestIo) -> Result<StopReason, Error> {
        let memory = self.shared.memory();
        // RAM may have been added since the last run, or written by whoever set the state.
        self.cpu.tlb.flush(false);
        let attention = self.cpu.apic.attention().clone();
        let traced = TracedIo::around(io, self.cpu.tracer.as_deref());
        let mut exec = Exec {
            cpu: &mut self.cpu,
            memory: &memory,
            io: traced.as_ref().map_or(io, |traced| traced),
        };
        attention.set_outside(false);
        let stopped = exec.run(&attention);
        attention.set_outside(true);
        Ok(stopped)
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        Arc::new(Kicker(self.cpu.apic.attention().clone()))
    }

    fn state(&mut self) -> Result<CpuState, Error> {
        // The timer has a thread of its own. Should it fire between what is read of the APIC's page and of the deadline,
        // neither would have its interrupt; so it comes once more, as one that was late.
        let deadline = self.cpu.apic.tsc_deadline();
        let mut state = self.read_all()?;
        if state.tsc_deadline == 0 {
            state.tsc_deadline = deadline;
        }
        Ok(state)
    }

    fn set_state(&mut self, state: &CpuState) -> Result<(), Error> {
        self.write_all(state)?;
        self.cpu.tlb.flush(false);
        self.cpu.forget_code();
        Ok(())
    }

    fn take_up_code(&mut self, kept: &mut (dyn Read + Send)) -> KeptCode {
        if self.cpu.take_up_code(kept, &self.shared.memory()) {
            return KeptCode::TakenUp;
        }
        self.cpu.gather_code();
        KeptCode::Gathering
    }

    fn code_to_keep(&mut self) -> Option<Vec<u8>> {
        self.cpu.code_to_keep(&self.shared.memory())
    }
}

struct Kicker(Arc<Attention>);

impl Kick for Kicker {
    fn kick(&self) {
        self.0.post(KICK);
    }
}

/// What the loop does next.
enum Next {
    /// Guest code.
    Execute,
    /// Nothing, until somebody wants attention or the local APIC's timer fires.
    Sleep,
}

impl Exec<'_> {
    /// Runs until something stops it.
    fn run(&mut self, attention: &Attention) -> StopReason {
        self.refresh_clock();
        // Whatever was asked before this run is looked at first.
        let mut asked = attention.take() | EVENT;
        loop {
            if asked & KICK != 0 {
                attention.post(asked & !KICK);
                self.trace_exit("kicked");
                return StopReason::Kicked;
            }
            if asked & PAUSE != 0 {
                self.pause(attention);
                asked = asked & !PAUSE | attention.take();
                continue;
            }
            match self.attend(asked, attention) {
                Ok(Next::Execute) => {}
                Ok(Next::Sleep) => {
                    self.trace_exit(match self.cpu.activity {
                        Activity::Halted => "halted",
                        _ => "waits-to-be-started",
                    });
                    let deadline = self.cpu.apic.deadline();
                    attention.set_outside(true);
                    attention.sleep(deadline);
                    attention.set_outside(false);
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        self.cpu.apic.clone().expire(Instant::now());
                    }
                    asked = attention.take() | EVENT;
                    continue;
                }
                Err(TripleFault) => return self.shut_down(),
            }
            if let Err(TripleFault) = self.execute(attention) {
                return self.shut_down();
            }
            asked = attention.take() | EVENT;
        }
    }

    /// Guest code, until attention is wanted or may be due.
    fn execute(&mut self, attention: &Attention) -> Result<(), TripleFault> {
        let one_by_one = self.traces_blocks();
        loop {
            let interrupts = self.takes_interrupts();
            let stepping = self.cpu.events.shadow_sti || self.cpu.events.shadow_mov_ss;
            let result = if stepping || self.is_debugged() {
                (self.cpu.events.shadow_sti, self.cpu.events.shadow_mov_ss) = (false, false);
                self.trace_block(Tier::Interpreted);
                self.run_debugged()
            } else if one_by_one {
                if attention.wanted() {
                    // Translated code would leave at once.
                    return Ok(());
                }
                self.run_one_block(Self::trace_block)
            } else {
                self.run_hot_block()
            };
            if let Err(exception) = result {
                self.deliver(exception)?;
            }
            // What was waiting for interrupts to be let in is looked for once they are.
            let opened = !interrupts && self.takes_interrupts();
            if attention.wanted() || opened || stepping || self.cpu.activity != Activity::Running {
                return Ok(());
            }
        }
    }

    pub(crate) fn takes_interrupts(&self) -> bool {
        let events = &self.cpu.events;
        self.cpu.rflags & flags::IF != 0 && !events.shadow_sti && !events.shadow_mov_ss
    }

    /// Handles what was asked, then finds out what comes next.
    fn attend(&mut self, asked: u32, attention: &Attention) -> Result<Next, TripleFault> {
        if asked & FORGET_WRITES != 0 {
            self.cpu.tlb.forget_writes(None);
            attention.note_forgotten();
        }
        if asked & CODE_CHANGED != 0 {
            for gpa in attention.take_changed_code() {
                self.forget_page(gpa);
            }
        }
        if asked & SAMPLE != 0 {
            self.take_sample();
        }
        if asked & EVENT != 0 {
            self.take_signals();
        }
        self.deliver_pending()?;
        let waiting = !self.takes_interrupts() && self.cpu.apic.has_deliverable();
        self.cpu.translator.waiting = waiting.into();
        match self.cpu.activity {
            Activity::Running => Ok(Next::Execute),
            _ => Ok(Next::Sleep),
        }
    }

    /// INIT, start-up and non-maskable interrupts (Intel SDM vol. 3, 9.4).
    fn take_signals(&mut self) {
        let signals = self.cpu.apic.take_signals();
        if signals.init {
            self.cpu.reset_by_init();
        }
        if signals.nmi {
            self.cpu.events.nmi_pending = true;
        }
        let startup = match self.cpu.activity {
            Activity::SipiReceived(vector) => Some(vector),
            Activity::WaitForSipi | Activity::WaitForInit => signals.startup,
            // A running processor ignores them.
            _ => None,
        };
        if let Some(vector) = startup {
            self.cpu.start_up(vector);
        }
    }

    /// Delivers one of the events that are due, highest first (Intel SDM vol. 3, 6.9).
    fn deliver_pending(&mut self) -> Result<(), TripleFault> {
        if matches!(
            self.cpu.activity,
            Activity::WaitForInit | Activity::WaitForSipi | Activity::SipiReceived(_)
        ) {
            return Ok(());
        }
        if self.deliver_what_was_set()? {
            return Ok(());
        }
        let events = &mut self.cpu.events;
        let shadow = events.shadow_sti || events.shadow_mov_ss;
        if events.nmi_pending && !events.nmi_masked && !shadow {
            (events.nmi_pending, events.nmi_masked) = (false, true);
            self.cpu.activity = Activity::Running;
            return self.deliver_interrupt(NMI_VECTOR);
        }
        if self.takes_interrupts()
            && let Some(vector) = self.cpu.apic.acknowledge()
        {
            self.cpu.activity = Activity::Running;
            return self.deliver_interrupt(vector);
        }
        Ok(())
    }

    /// Exceptions and interrupts that were on their way when the state was taken.
    fn deliver_what_was_set(&mut self) -> Result<bool, TripleFault> {
        let (exception, interrupt) = (self.cpu.events.exception.take(), self.cpu.events.interrupt.take());
        let nmi = std::mem::take(&mut self.cpu.events.nmi_injected);
        if let Some(pending) = exception {
            let mut exception = Exception::from(pending);
            if pending.payload.is_none() && pending.vector == PAGE_FAULT {
                exception.payload = self.cpu.cr2;
            }
            self.deliver(exception)?;
        } else if nmi {
            self.deliver_interrupt(NMI_VECTOR)?;
        } else if let Some(pending) = interrupt {
            self.deliver_interrupt(pending.vector)?;
        } else {
            return Ok(false);
        }
        self.cpu.activity = Activity::Running;
        Ok(true)
    }

    fn shut_down(&self) -> StopReason {
        self.trace_exit("shutdown");
        tracing::info!("triple fault: {}", self.describe());
        StopReason::Shutdown
    }

    /// Registers for a message.
    pub(crate) fn describe(&self) -> String {
        let cpu = &*self.cpu;
        let names = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"];
        let mut text = format!("rip={:#x} rflags={:#x}", cpu.rip, cpu.rflags);
        for (index, value) in cpu.gpr.iter().enumerate() {
            let name = names
                .get(index)
                .map_or_else(|| format!("r{index}"), |name| (*name).to_owned());
            text += &format!(" {name}={value:#x}");
        }
        let cs = cpu.segment(SegReg::Cs).selector;
        let controls = (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4, cpu.efer);
        text + &format!(
            " cs={cs:#x} cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
            controls.0, controls.1, controls.2, controls.3, controls.4
        )
    }
}

/// Non-maskable interrupts have this one.
const NMI_VECTOR: u8 = 2;
const PAGE_FAULT: u8 = 14;
