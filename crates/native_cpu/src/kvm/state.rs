//! CPU state, between KVM's structures and architectural ones.

use std::sync::Arc;

use hypervisor::Error;
use hypervisor::x86_64::{
    CpuState, DebugRegisters, GeneralRegisters, Msr, PendingEvents, PendingException, RunState, SAVED_MSRS,
    Segment, SystemRegisters, TableRegister,
};
use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_SIPI_RECEIVED,
    KVM_MP_STATE_UNINITIALIZED, KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW,
    KVM_X86_SHADOW_INT_MOV_SS, KVM_X86_SHADOW_INT_STI, Msrs, kvm_debugregs, kvm_dtable, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcr, kvm_xcrs,
    kvm_xsave,
};

use super::host;
use super::vcpu::KvmVcpu;

/// The registers of the state table that this host's KVM has, in the table's order.
pub(super) fn available_msrs(kvm: &kvm_ioctls::Kvm) -> Result<Arc<[u32]>, Error> {
    let list = kvm
        .get_msr_index_list()
        .map_err(host("ask KVM for its model-specific registers"))?;
    let offered = list.as_slice();
    Ok(SAVED_MSRS
        .iter()
        .map(|(index, _)| *index)
        .filter(|index| offered.contains(index))
        .collect())
}

impl KvmVcpu {
    pub(super) fn read_state(&mut self) -> Result<CpuState, Error> {
        let fd = &self.fd;
        let sregs = fd.get_sregs().map_err(host("read system registers"))?;
        let xcrs = fd.get_xcrs().map_err(host("read extended control registers"))?;
        let xsave = fd.get_xsave().map_err(host("read extended state"))?;
        let lapic = fd.get_lapic().map_err(host("read the local APIC"))?;
        let debug = fd.get_debug_regs().map_err(host("read debug registers"))?;
        let events = fd.get_vcpu_events().map_err(host("read pending events"))?;
        let run_state = fd.get_mp_state().map_err(host("read the run state"))?;
        Ok(CpuState {
            general: general_from(&fd.get_regs().map_err(host("read general registers"))?),
            system: system_from(&sregs),
            debug: DebugRegisters {
                address: debug.db,
                dr6: debug.dr6,
                dr7: debug.dr7,
            },
            xcr0: xcrs.xcrs[..xcrs.nr_xcrs as usize]
                .iter()
                .find(|xcr| xcr.xcr == 0)
                .map_or(1, |xcr| xcr.value),
            xsave: xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect(),
            msrs: self.read_msrs()?,
            local_apic: lapic_from(&lapic),
            events: events_from(&events),
            run_state: run_state_from(run_state.mp_state),
        })
    }

    /// The order matters: system registers before the local APIC (its base and x2APIC mode), extended control
    /// before extended state, registers before events, and the run state last.
    pub(super) fn write_state(&mut self, state: &CpuState) -> Result<(), Error> {
        let fd = &self.fd;
        fd.set_sregs(&system_to(&state.system))
            .map_err(host("set system registers"))?;
        fd.set_regs(&general_to(&state.general))
            .map_err(host("set general registers"))?;
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        xcrs.xcrs[0] = kvm_xcr {
            xcr: 0,
            reserved: 0,
            value: state.xcr0,
        };
        fd.set_xcrs(&xcrs)
            .map_err(host("set extended control registers"))?;
        // SAFETY: no dynamically enabled component (AMX) is requested from the host, so 4096 bytes are all.
        unsafe { fd.set_xsave(&xsave_to(&state.xsave)?) }.map_err(host("set extended state"))?;
        self.write_msrs(&state.msrs)?;
        let fd = &self.fd;
        fd.set_lapic(&lapic_to(&state.local_apic)?)
            .map_err(host("set the local APIC"))?;
        let DebugRegisters { address, dr6, dr7 } = state.debug;
        let debug = kvm_debugregs {
            db: address,
            dr6,
            dr7,
            ..Default::default()
        };
        fd.set_debug_regs(&debug).map_err(host("set debug registers"))?;
        fd.set_vcpu_events(&events_to(&state.events))
            .map_err(host("set pending events"))?;
        let mp_state = kvm_mp_state {
            mp_state: run_state_to(state.run_state),
        };
        fd.set_mp_state(mp_state).map_err(host("set the run state"))
    }

    /// Registers that this CPU profile lacks fail to read; they are not part of its state.
    fn read_msrs(&self) -> Result<Vec<Msr>, Error> {
        let mut values = Vec::with_capacity(self.msrs.len());
        for &index in self.msrs.iter() {
            let mut one = msr_list(&[Msr { index, value: 0 }])?;
            if self
                .fd
                .get_msrs(&mut one)
                .map_err(host("read a model-specific register"))?
                == 1
            {
                values.push(Msr {
                    index,
                    value: one.as_slice()[0].data,
                });
            }
        }
        Ok(values)
    }

    fn write_msrs(&self, msrs: &[Msr]) -> Result<(), Error> {
        let count = self
            .fd
            .set_msrs(&msr_list(msrs)?)
            .map_err(host("set model-specific registers"))?;
        match msrs.get(count) {
            None => Ok(()),
            Some(refused) => Err(Error::State {
                element: "model-specific registers",
                reason: format!(
                    "the host refused {:#x} for register {:#x}",
                    refused.value, refused.index
                ),
            }),
        }
    }
}

fn msr_list(msrs: &[Msr]) -> Result<Msrs, Error> {
    let entries: Vec<_> = msrs
        .iter()
        .map(|msr| kvm_msr_entry {
            index: msr.index,
            data: msr.value,
            ..Default::default()
        })
        .collect();
    Msrs::from_entries(&entries).map_err(|_| Error::State {
        element: "model-specific registers",
        reason: "there are more than KVM takes at once".to_owned(),
    })
}

fn general_from(regs: &kvm_regs) -> GeneralRegisters {
    let kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        ..
    } = *regs;
    let kvm_regs {
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
        ..
    } = *regs;
    let gpr = [
        rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15,
    ];
    GeneralRegisters { gpr, rip, rflags }
}

fn general_to(general: &GeneralRegisters) -> kvm_regs {
    let [
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
    ] = general.gpr;
    let (rip, rflags) = (general.rip, general.rflags);
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    }
}

fn segment_from(segment: &kvm_segment) -> Segment {
    let attributes = u32::from(segment.type_)
        | u32::from(segment.s) << 4
        | u32::from(segment.dpl) << 5
        | u32::from(segment.present) << 7
        | u32::from(segment.avl) << 12
        | u32::from(segment.l) << 13
        | u32::from(segment.db) << 14
        | u32::from(segment.g) << 15
        | u32::from(segment.unusable) << 16;
    Segment {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        attributes,
    }
}

fn segment_to(segment: &Segment) -> kvm_segment {
    let bits = |low: u32, count: u32| (segment.attributes >> low & ((1 << count) - 1)) as u8;
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: bits(0, 4),
        s: bits(4, 1),
        dpl: bits(5, 2),
        present: bits(7, 1),
        avl: bits(12, 1),
        l: bits(13, 1),
        db: bits(14, 1),
        g: bits(15, 1),
        unusable: bits(16, 1),
        padding: 0,
    }
}

fn table_from(table: &kvm_dtable) -> TableRegister {
    TableRegister {
        base: table.base,
        limit: table.limit,
    }
}

fn table_to(table: &TableRegister) -> kvm_dtable {
    kvm_dtable {
        base: table.base,
        limit: table.limit,
        ..Default::default()
    }
}

fn system_from(sregs: &kvm_sregs) -> SystemRegisters {
    let kvm_sregs {
        es,
        cs,
        ss,
        ds,
        fs,
        gs,
        ..
    } = sregs;
    SystemRegisters {
        segments: [es, cs, ss, ds, fs, gs].map(segment_from),
        tr: segment_from(&sregs.tr),
        ldtr: segment_from(&sregs.ldt),
        gdtr: table_from(&sregs.gdt),
        idtr: table_from(&sregs.idt),
        cr0: sregs.cr0,
        cr2: sregs.cr2,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        cr8: sregs.cr8,
        efer: sregs.efer,
        apic_base: sregs.apic_base,
    }
}

/// The interrupt bitmap stays empty: what is pending comes with the events.
fn system_to(system: &SystemRegisters) -> kvm_sregs {
    let [es, cs, ss, ds, fs, gs] = system.segments.map(|segment| segment_to(&segment));
    kvm_sregs {
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        tr: segment_to(&system.tr),
        ldt: segment_to(&system.ldtr),
        gdt: table_to(&system.gdtr),
        idt: table_to(&system.idtr),
        cr0: system.cr0,
        cr2: system.cr2,
        cr3: system.cr3,
        cr4: system.cr4,
        cr8: system.cr8,
        efer: system.efer,
        apic_base: system.apic_base,
        interrupt_bitmap: [0; 4],
    }
}

fn xsave_to(bytes: &[u8]) -> Result<kvm_xsave, Error> {
    let mut xsave = kvm_xsave::default();
    if bytes.len() != size_of_val(&xsave.region) {
        let reason = format!("it has {} bytes, not {}", bytes.len(), size_of_val(&xsave.region));
        return Err(Error::State {
            element: "XSAVE area",
            reason,
        });
    }
    for (word, bytes) in xsave.region.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    Ok(xsave)
}

/// Each register occupies the first four bytes of a 16-byte slot.
fn lapic_from(lapic: &kvm_lapic_state) -> Vec<u32> {
    lapic
        .regs
        .as_chunks::<16>()
        .0
        .iter()
        .map(|slot| u32::from_le_bytes([0, 1, 2, 3].map(|i| slot[i] as u8)))
        .collect()
}

fn lapic_to(registers: &[u32]) -> Result<kvm_lapic_state, Error> {
    let mut lapic = kvm_lapic_state::default();
    if registers.len() * 16 != lapic.regs.len() {
        let reason = format!(
            "it has {} registers, not {}",
            registers.len(),
            lapic.regs.len() / 16
        );
        return Err(Error::State {
            element: "local APIC",
            reason,
        });
    }
    for (slot, register) in lapic.regs.chunks_exact_mut(16).zip(registers) {
        for (byte, value) in slot.iter_mut().zip(register.to_le_bytes()) {
            *byte = value as _;
        }
    }
    Ok(lapic)
}

fn events_from(events: &kvm_vcpu_events) -> PendingEvents {
    let exception = &events.exception;
    let any = exception.injected | exception.pending != 0;
    PendingEvents {
        exception: any.then(|| PendingException {
            vector: exception.nr,
            error_code: (exception.has_error_code != 0).then_some(exception.error_code),
            injected: exception.injected != 0,
        }),
        interrupt: (events.interrupt.injected != 0).then_some(events.interrupt.nr),
        interrupt_is_soft: events.interrupt.soft != 0,
        sti_shadow: u32::from(events.interrupt.shadow) & KVM_X86_SHADOW_INT_STI != 0,
        mov_ss_shadow: u32::from(events.interrupt.shadow) & KVM_X86_SHADOW_INT_MOV_SS != 0,
        nmi_pending: events.nmi.pending != 0,
        nmi_injected: events.nmi.injected != 0,
        nmi_blocked: events.nmi.masked != 0,
    }
}

fn events_to(pending: &PendingEvents) -> kvm_vcpu_events {
    let mut events = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        ..Default::default()
    };
    if let Some(exception) = pending.exception {
        // Without the payload capability KVM knows only exceptions whose delivery has begun.
        events.exception.injected = 1;
        events.exception.nr = exception.vector;
        events.exception.has_error_code = exception.error_code.is_some().into();
        events.exception.error_code = exception.error_code.unwrap_or(0);
    }
    events.interrupt.injected = pending.interrupt.is_some().into();
    events.interrupt.nr = pending.interrupt.unwrap_or(0);
    events.interrupt.soft = pending.interrupt_is_soft.into();
    let sti = if pending.sti_shadow {
        KVM_X86_SHADOW_INT_STI
    } else {
        0
    };
    let mov_ss = if pending.mov_ss_shadow {
        KVM_X86_SHADOW_INT_MOV_SS
    } else {
        0
    };
    events.interrupt.shadow = (sti | mov_ss) as u8;
    events.nmi.pending = pending.nmi_pending.into();
    events.nmi.injected = pending.nmi_injected.into();
    events.nmi.masked = pending.nmi_blocked.into();
    events
}

fn run_state_from(mp_state: u32) -> RunState {
    match mp_state {
        KVM_MP_STATE_HALTED => RunState::Halted,
        KVM_MP_STATE_UNINITIALIZED => RunState::WaitForInit,
        KVM_MP_STATE_INIT_RECEIVED | KVM_MP_STATE_SIPI_RECEIVED => RunState::WaitForStartup,
        _ => RunState::Running,
    }
}

fn run_state_to(run_state: RunState) -> u32 {
    match run_state {
        RunState::Running => KVM_MP_STATE_RUNNABLE,
        RunState::Halted => KVM_MP_STATE_HALTED,
        RunState::WaitForInit => KVM_MP_STATE_UNINITIALIZED,
        RunState::WaitForStartup => KVM_MP_STATE_INIT_RECEIVED,
    }
}
