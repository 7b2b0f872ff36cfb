//! `CPUID`, and instructions that tell the time or which processor this is.

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::{Cpu, control};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

use hypervisor::x86_64::{CpuidLeaf, find_leaf};

/// What KVM answers to a hypercall that it does not know, and to one of a program.
const NO_SUCH_CALL: i64 = -1000;
const NOT_PERMITTED: i64 = -1;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Cpuid => cpuid,
        Mnemonic::Rdtsc => rdtsc,
        Mnemonic::Rdtscp => rdtscp,
        Mnemonic::Rdpid => rdpid,
        // There are no counters.
        Mnemonic::Rdpmc => |_, _| Err(Exception::PROTECTION),
        Mnemonic::Vmcall | Mnemonic::Vmmcall => hypercall,
        _ => return None,
    };
    Some(handler)
}

fn cpuid(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let gpr = &exec.cpu.gpr;
    let answer = exec.cpu.answer(gpr[Cpu::RAX] as u32, gpr[Cpu::RCX] as u32);
    let gpr = &mut exec.cpu.gpr;
    gpr[Cpu::RAX] = answer.eax.into();
    gpr[Cpu::RBX] = answer.ebx.into();
    gpr[Cpu::RCX] = answer.ecx.into();
    gpr[Cpu::RDX] = answer.edx.into();
    Ok(())
}

impl Cpu {
    /// What CPUID answers now: some bits follow registers. Leaves that do not exist are all zero.
    fn answer(&self, leaf: u32, subleaf: u32) -> CpuidLeaf {
        const APIC: u32 = 1 << 9;
        const OSXSAVE: u32 = 1 << 27;
        const APIC_BASE_ENABLED: u64 = 1 << 11;
        let none = CpuidLeaf {
            leaf,
            subleaf: None,
            eax: 0,
            ebx: 0,
            ecx: 0,
            edx: 0,
        };
        let mut answer = find_leaf(&self.cpuid, leaf, subleaf).copied().unwrap_or(none);
        let no_apic = self.apic.base() & APIC_BASE_ENABLED == 0;
        match (leaf, subleaf) {
            (1, _) => {
                let on = self.cr4 & control::CR4_OSXSAVE != 0;
                answer.ecx = answer.ecx & !OSXSAVE | if on { OSXSAVE } else { 0 };
                answer.edx &= if no_apic { !APIC } else { u32::MAX };
            }
            (0x8000_0001, _) => answer.edx &= if no_apic { !APIC } else { u32::MAX },
            (0xd, 0) if answer != none => answer.ebx = self.save_area(false),
            (0xd, 1) if answer.eax != 0 => answer.ebx = self.save_area(true),
            _ => {}
        }
        answer
    }

    /// Bytes that `XSAVE` needs for what XCR0 manages, in the standard or the compacted form (Intel SDM vol. 1, 13.4).
    fn save_area(&self, compacted: bool) -> u32 {
        const LEGACY_AND_HEADER: u32 = 576;
        let extended = |leaf: &&CpuidLeaf| {
            let component = leaf.subleaf.unwrap_or(0);
            leaf.leaf == 0xd && (2..63).contains(&component) && self.xcr0 >> component & 1 != 0
        };
        let mut end = LEGACY_AND_HEADER;
        for leaf in self.cpuid.iter().filter(extended) {
            end = if compacted {
                let start = if leaf.ecx & 2 != 0 {
                    end.next_multiple_of(64)
                } else {
                    end
                };
                start + leaf.eax
            } else {
                end.max(leaf.ebx.saturating_add(leaf.eax))
            };
        }
        end
    }
}

/// CR4.TSD keeps the time from programs.
fn check_time(exec: &Exec<'_>) -> Result<(), Exception> {
    if exec.cpu.cr4 & control::CR4_TSD != 0 && exec.protected() {
        return exec.check_privilege();
    }
    Ok(())
}

fn rdtsc(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    check_time(exec)?;
    let now = exec.cpu.apic.tsc().now();
    (exec.cpu.gpr[Cpu::RAX], exec.cpu.gpr[Cpu::RDX]) = (now & 0xffff_ffff, now >> 32);
    Ok(())
}

fn rdtscp(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    rdtsc(exec, instruction)?;
    exec.cpu.gpr[Cpu::RCX] = exec.cpu.msrs.tsc_aux & 0xffff_ffff;
    Ok(())
}

fn rdpid(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.set_gpr(instruction.op0_register(), exec.cpu.msrs.tsc_aux & 0xffff_ffff);
    Ok(())
}

/// There is nothing to call.
fn hypercall(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let answer = if exec.cpu.cpl() == 0 {
        NO_SUCH_CALL
    } else {
        NOT_PERMITTED
    };
    let wide = exec.cpu.mode.bits == 64;
    exec.cpu.gpr[Cpu::RAX] = answer as u64 & if wide { u64::MAX } else { 0xffff_ffff };
    Ok(())
}
