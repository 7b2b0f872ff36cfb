//! The state table: from and to the registers as they are kept here.

use std::sync::Arc;

use hypervisor::Error;
use hypervisor::x86_64::{
    Activity, CpuState, CpuStateAccess, CpuidLeaf, DebugRegisters, ExtendedState, GeneralRegisters,
    LocalApic, Msrs, PendingEvents, PendingException, SystemRegisters,
};

use crate::apic::Apic;
use crate::blocks::Blocks;
use crate::cpu::{Cpu, Features, Mode, SegReg, SignalRoom};
use crate::exception::Exception;
use crate::memory::Tlb;
use crate::system::{self, SystemMsrs};
use crate::translate::{Translator, TranslatorState};
use crate::vcpu::SoftVcpu;
use crate::vector::VectorState;
use crate::x87::{self, X87};

impl Cpu {
    /// The vCPU of `apic` after reset, answering CPUID by `leaves`.
    pub(crate) fn new(apic: Arc<Apic>, leaves: Vec<CpuidLeaf>) -> Box<Self> {
        let id = apic.id();
        let mut cpu = Box::new(Self {
            room: SignalRoom::EMPTY,
            gpr: [0; 16],
            rip: 0,
            rflags: 0,
            vector: VectorState::default(),
            x87: X87::default(),
            translator: TranslatorState::new(),
            tlb: Tlb::new(),
            mode: Mode::RESET,
            segments: Default::default(),
            ldtr: Default::default(),
            tr: Default::default(),
            gdtr: Default::default(),
            idtr: Default::default(),
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            xcr0: 1,
            debug: DebugRegisters::default(),
            msrs: SystemMsrs::default(),
            activity: Activity::Running,
            events: PendingEvents::default(),
            apic,
            features: Features::of(&leaves),
            cpuid: leaves,
            blocks: Blocks::default(),
            translations: Translator::default(),
            tracer: None,
            sampled: None,
            undefined: Arc::default(),
        });
        let reset = CpuState::reset(id as u8);
        cpu.set_registers(&reset);
        cpu.msrs = SystemMsrs::default();
        cpu.activity = reset.activity;
        cpu
    }

    fn set_registers(&mut self, state: &CpuState) {
        system::set_system_registers(self, &state.system);
        (self.gpr, self.rip) = (state.general.gpr, state.general.rip);
        self.set_rflags(state.general.rflags);
        self.debug = state.debug.clone();
        self.events = PendingEvents::default();
        self.update_mode();
        self.tlb.flush(false);
    }

    /// INIT: registers as after reset, but for x87, SSE and the time-stamp counter (Intel SDM vol. 3, table 10-1).
    pub(crate) fn reset_by_init(&mut self) {
        let base = self.apic.base();
        self.apic.clone().reset();
        let mut reset = CpuState::reset(self.apic.id() as u8);
        reset.system.apic_base = base;
        self.set_registers(&reset);
        self.activity = if self.apic.id() == 0 {
            Activity::Running
        } else {
            Activity::WaitForSipi
        };
    }

    /// A start-up interrupt: real mode at the page that the vector names.
    pub(crate) fn start_up(&mut self, vector: u8) {
        let mut cs = *self.segment(SegReg::Cs);
        (cs.selector, cs.base) = (u16::from(vector) << 8, u64::from(vector) << 12);
        self.set_segment(SegReg::Cs, cs);
        self.rip = 0;
        self.activity = Activity::Running;
    }
}

impl From<PendingException> for Exception {
    fn from(pending: PendingException) -> Self {
        Self {
            vector: pending.vector,
            error_code: pending.error_code,
            payload: pending.payload.unwrap_or(0),
            // RIP is already where the handler must return to.
            trap: true,
        }
    }
}

impl CpuStateAccess for SoftVcpu {
    fn system(&mut self) -> Result<SystemRegisters, Error> {
        Ok(system::system_registers(&self.cpu))
    }

    fn set_system(&mut self, value: &SystemRegisters) -> Result<(), Error> {
        system::set_system_registers(&mut self.cpu, value);
        self.cpu.update_mode();
        Ok(())
    }

    fn general(&mut self) -> Result<GeneralRegisters, Error> {
        let cpu = &self.cpu;
        Ok(GeneralRegisters {
            gpr: cpu.gpr,
            rip: cpu.rip,
            rflags: cpu.rflags,
        })
    }

    fn set_general(&mut self, value: &GeneralRegisters) -> Result<(), Error> {
        (self.cpu.gpr, self.cpu.rip) = (value.gpr, value.rip);
        self.cpu.set_rflags(value.rflags);
        Ok(())
    }

    fn xcr0(&mut self) -> Result<u64, Error> {
        Ok(self.cpu.xcr0)
    }

    fn set_xcr0(&mut self, value: &u64) -> Result<(), Error> {
        self.cpu.xcr0 = *value;
        Ok(())
    }

    fn extended(&mut self) -> Result<ExtendedState, Error> {
        Ok(x87::extended_state(&self.cpu))
    }

    fn set_extended(&mut self, value: &ExtendedState) -> Result<(), Error> {
        x87::set_extended_state(&mut self.cpu, value)
    }

    fn debug(&mut self) -> Result<DebugRegisters, Error> {
        Ok(self.cpu.debug.clone())
    }

    fn set_debug(&mut self, value: &DebugRegisters) -> Result<(), Error> {
        self.cpu.debug = value.clone();
        Ok(())
    }

    fn tsc(&mut self) -> Result<u64, Error> {
        Ok(self.cpu.apic.tsc().now())
    }

    fn set_tsc(&mut self, value: &u64) -> Result<(), Error> {
        self.cpu.apic.tsc().restore(*value);
        Ok(())
    }

    fn msrs(&mut self) -> Result<Msrs, Error> {
        Ok(system::msrs(&self.cpu))
    }

    fn set_msrs(&mut self, value: &Msrs) -> Result<(), Error> {
        system::set_msrs(&mut self.cpu, value)
    }

    fn lapic(&mut self) -> Result<LocalApic, Error> {
        Ok(self.cpu.apic.registers())
    }

    fn set_lapic(&mut self, value: &LocalApic) -> Result<(), Error> {
        self.cpu.apic.set_registers(value);
        Ok(())
    }

    fn tsc_deadline(&mut self) -> Result<u64, Error> {
        Ok(self.cpu.apic.tsc_deadline())
    }

    fn set_tsc_deadline(&mut self, value: &u64) -> Result<(), Error> {
        self.cpu.apic.set_tsc_deadline(*value);
        Ok(())
    }

    fn activity(&mut self) -> Result<Activity, Error> {
        Ok(self.cpu.activity)
    }

    fn set_activity(&mut self, value: &Activity) -> Result<(), Error> {
        self.cpu.activity = *value;
        Ok(())
    }

    fn events(&mut self) -> Result<PendingEvents, Error> {
        Ok(self.cpu.events.clone())
    }

    fn set_events(&mut self, value: &PendingEvents) -> Result<(), Error> {
        self.cpu.events = value.clone();
        Ok(())
    }
}
