//! System registers and MSRs as the state table has them.

use hypervisor::Error;
use hypervisor::x86_64::{Msrs, SystemRegisters, msr};

use crate::cpu::{Cpu, SegReg};

/// Segments, descriptor tables, control registers.
pub(crate) fn system_registers(cpu: &Cpu) -> SystemRegisters {
    let segment = |register| *cpu.segment(register);
    SystemRegisters {
        cs: segment(SegReg::Cs),
        ds: segment(SegReg::Ds),
        es: segment(SegReg::Es),
        fs: segment(SegReg::Fs),
        gs: segment(SegReg::Gs),
        ss: segment(SegReg::Ss),
        tr: cpu.tr,
        ldtr: cpu.ldtr,
        gdtr: cpu.gdtr,
        idtr: cpu.idtr,
        cr0: cpu.cr0,
        cr2: cpu.cr2,
        cr3: cpu.cr3,
        cr4: cpu.cr4,
        cr8: cpu.apic.tpr().into(),
        efer: cpu.efer,
        apic_base: cpu.apic.base(),
    }
}

/// Sets all of them, unchecked: [`Cpu::update_mode`] and a flush of the TLB are left to the caller.
pub(crate) fn set_system_registers(cpu: &mut Cpu, state: &SystemRegisters) {
    let segments = [
        (SegReg::Cs, state.cs),
        (SegReg::Ds, state.ds),
        (SegReg::Es, state.es),
        (SegReg::Fs, state.fs),
        (SegReg::Gs, state.gs),
        (SegReg::Ss, state.ss),
    ];
    for (register, segment) in segments {
        cpu.segments[register as usize] = segment;
    }
    (cpu.tr, cpu.ldtr) = (state.tr, state.ldtr);
    (cpu.gdtr, cpu.idtr) = (state.gdtr, state.idtr);
    (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4) = (state.cr0, state.cr2, state.cr3, state.cr4);
    cpu.efer = state.efer;
    cpu.apic.set_base(state.apic_base);
    if u64::from(cpu.apic.tpr()) != state.cr8 {
        cpu.apic.set_tpr(state.cr8 as u8);
    }
}

/// Every MSR of [`msr::STATE_MSRS`] that this CPU has.
pub(crate) fn msrs(cpu: &Cpu) -> Msrs {
    let mut kept = cpu.msrs.clone();
    msr::STATE_MSRS
        .iter()
        .filter(|&&index| cpu.has_msr(index))
        .filter_map(|&index| kept.slot(index).map(|slot| (index, *slot)))
        .collect()
}

/// Sets those that `state` has. One that this CPU lacks must be zero, as if it had never been used.
///
/// # Errors
/// [`Error::State`] for a register that this CPU lacks, and for a value that it cannot hold.
pub(crate) fn set_msrs(cpu: &mut Cpu, state: &Msrs) -> Result<(), Error> {
    let mut kept = cpu.msrs.clone();
    for (&index, &value) in state {
        let slot = kept.slot(index).filter(|_| cpu.has_msr(index));
        match slot {
            Some(slot) if cpu.acceptable(index, value) => *slot = value,
            None if value == 0 => {}
            _ => {
                return Err(Error::State {
                    element: "msrs",
                    reason: format!("MSR {index:#x} cannot be {value:#x} on this CPU"),
                });
            }
        }
    }
    kept.clock_due = true;
    cpu.msrs = kept;
    Ok(())
}
