//! Model-specific registers.

use iced_x86::{Instruction, Mnemonic};

use super::pvclock;
use crate::cpu::{Cpu, SegReg, control};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};
use crate::memory::is_canonical;

use hypervisor::x86_64::msr;

const APIC_BASE: u32 = 0x1b;
const SPEC_CTRL: u32 = 0x48;
const PRED_CMD: u32 = 0x49;
const PATCH_LEVEL: u32 = 0x8b;
const MTRR_CAP: u32 = 0xfe;
const DEBUGCTL: u32 = 0x1d9;
const X2APIC: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;
const EFER: u32 = 0xc000_0080;
const CSTAR: u32 = 0xc000_0083;
const FMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
pub(super) const TSC_AUX: u32 = 0xc000_0103;
const HWCR: u32 = 0xc001_0015;
const SYSCFG: u32 = 0xc001_0010;
const NB_CFG: u32 = 0xc001_001f;
const DE_CFG: u32 = 0xc001_1029;

/// EFER.AutoIBRS.
const EFER_AUTO_IBRS: u64 = 1 << 21;
/// HWCR: the time-stamp counter does not change its frequency. It is the only bit that reads as set.
const HWCR_TSC_FREQUENCY: u64 = 1 << 24;
/// DEBUGCTL: RFLAGS.TF asks for a trap at each branch.
const DEBUGCTL_BTF: u64 = 1 << 1;
/// DE_CFG: LFENCE waits for everything before it.
const DE_CFG_LFENCE: u64 = 1 << 1;
/// A PAT as after reset.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// Eight pairs of variable MTRRs, fixed ones, write-combining.
const MTRR_CAP_VALUE: u64 = 0x508;
/// A microcode revision as KVM shows it on AMD's processors.
const PATCH_LEVEL_VALUE: u64 = 0x0100_0065_0000_0000;
/// Fast string operations, which cannot be switched off here.
const MISC_ENABLE_RESET: u64 = 1;

/// Model-specific registers that no other part holds.
#[derive(Clone, Debug)]
pub(crate) struct SystemMsrs {
    pub(super) star: u64,
    pub(super) lstar: u64,
    pub(super) cstar: u64,
    pub(super) fmask: u64,
    pub(crate) kernel_gs_base: u64,
    pub(super) tsc_aux: u64,
    /// What software has added to the time-stamp counter.
    pub(super) tsc_adjust: u64,
    pub(super) sysenter_cs: u64,
    pub(super) sysenter_esp: u64,
    pub(super) sysenter_eip: u64,
    pat: u64,
    misc_enable: u64,
    mtrr_def_type: u64,
    mtrr_variable: [u64; 16],
    mtrr_fixed: [u64; 11],
    spec_ctrl: u64,
    debugctl: u64,
    hwcr: u64,
    de_cfg: u64,
    pub(super) wall_clock: u64,
    pub(super) system_time: u64,
    /// The paravirtual clock is to be written before the guest goes on.
    pub(super) clock_due: bool,
}

impl Default for SystemMsrs {
    fn default() -> Self {
        Self {
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            tsc_aux: 0,
            tsc_adjust: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            pat: PAT_RESET,
            misc_enable: MISC_ENABLE_RESET,
            mtrr_def_type: 0,
            mtrr_variable: [0; 16],
            mtrr_fixed: [0; 11],
            spec_ctrl: 0,
            debugctl: 0,
            hwcr: HWCR_TSC_FREQUENCY,
            de_cfg: DE_CFG_LFENCE,
            wall_clock: 0,
            system_time: 0,
            clock_due: false,
        }
    }
}

impl SystemMsrs {
    /// Whether single steps go from branch to branch.
    pub(super) fn steps_by_branch(&self) -> bool {
        self.debugctl & DEBUGCTL_BTF != 0
    }

    /// A debug exception ends that.
    pub(super) fn step_by_instruction(&mut self) {
        self.debugctl &= !DEBUGCTL_BTF;
    }

    /// Where the register `index` is kept, for those that are nothing but kept.
    pub(super) fn slot(&mut self, index: u32) -> Option<&mut u64> {
        Some(match index {
            msr::STAR => &mut self.star,
            msr::LSTAR => &mut self.lstar,
            CSTAR => &mut self.cstar,
            FMASK => &mut self.fmask,
            msr::KERNEL_GS_BASE => &mut self.kernel_gs_base,
            TSC_AUX => &mut self.tsc_aux,
            msr::TSC_ADJUST => &mut self.tsc_adjust,
            msr::SYSENTER_CS => &mut self.sysenter_cs,
            msr::SYSENTER_ESP => &mut self.sysenter_esp,
            msr::SYSENTER_EIP => &mut self.sysenter_eip,
            msr::PAT => &mut self.pat,
            msr::MISC_ENABLE => &mut self.misc_enable,
            msr::MTRR_DEF_TYPE => &mut self.mtrr_def_type,
            0x200..=0x20f => &mut self.mtrr_variable[index as usize - 0x200],
            0x250 => &mut self.mtrr_fixed[0],
            0x258..=0x259 => &mut self.mtrr_fixed[index as usize - 0x258 + 1],
            0x268..=0x26f => &mut self.mtrr_fixed[index as usize - 0x268 + 3],
            SPEC_CTRL => &mut self.spec_ctrl,
            DEBUGCTL => &mut self.debugctl,
            HWCR => &mut self.hwcr,
            DE_CFG => &mut self.de_cfg,
            pvclock::WALL_CLOCK | pvclock::WALL_CLOCK_LEGACY => &mut self.wall_clock,
            pvclock::SYSTEM_TIME | pvclock::SYSTEM_TIME_LEGACY => &mut self.system_time,
            _ => return None,
        })
    }
}

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Rdmsr => rdmsr,
        Mnemonic::Wrmsr => wrmsr,
        _ => return None,
    };
    Some(handler)
}

fn rdmsr(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_privilege()?;
    let index = exec.cpu.gpr[Cpu::RCX] as u32;
    let Some(value) = exec.read_msr(index) else {
        tracing::debug!(index, "RDMSR of a register that does not exist");
        return Err(Exception::PROTECTION);
    };
    (exec.cpu.gpr[Cpu::RAX], exec.cpu.gpr[Cpu::RDX]) = (value & 0xffff_ffff, value >> 32);
    Ok(())
}

fn wrmsr(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_privilege()?;
    let gpr = &exec.cpu.gpr;
    let index = gpr[Cpu::RCX] as u32;
    let value = gpr[Cpu::RAX] & 0xffff_ffff | gpr[Cpu::RDX] << 32;
    if !exec.write_msr(index, value) {
        tracing::debug!(index, value, "WRMSR that a processor refuses");
        return Err(Exception::PROTECTION);
    }
    Ok(())
}

impl Exec<'_> {
    /// What a guest reads; `None` is #GP.
    fn read_msr(&mut self, index: u32) -> Option<u64> {
        let cpu = &mut *self.cpu;
        match index {
            msr::TSC => Some(cpu.apic.tsc().now()),
            APIC_BASE | msr::TSC_DEADLINE => cpu.apic.msr_read(index),
            _ if X2APIC.contains(&index) => cpu.apic.msr_read(index),
            EFER => Some(cpu.efer),
            FS_BASE => Some(cpu.segment(SegReg::Fs).base),
            GS_BASE => Some(cpu.segment(SegReg::Gs).base),
            MTRR_CAP if cpu.has_msr(msr::MTRR_DEF_TYPE) => Some(MTRR_CAP_VALUE),
            PATCH_LEVEL => Some(PATCH_LEVEL_VALUE),
            // Read by Linux without asking whether they are there.
            SYSCFG | NB_CFG => Some(0),
            _ if cpu.has_msr(index) => cpu.msrs.slot(index).map(|slot| *slot),
            _ => None,
        }
    }

    /// A guest's store; `false` is #GP.
    fn write_msr(&mut self, index: u32, value: u64) -> bool {
        match index {
            msr::TSC => {
                let before = self.cpu.apic.tsc().now();
                self.move_tsc(value.wrapping_sub(before));
                true
            }
            msr::TSC_ADJUST if self.cpu.has_msr(index) => {
                self.move_tsc(value.wrapping_sub(self.cpu.msrs.tsc_adjust));
                true
            }
            APIC_BASE | msr::TSC_DEADLINE => self.cpu.apic.clone().msr_write(index, value, self.io),
            _ if X2APIC.contains(&index) => self.cpu.apic.clone().msr_write(index, value, self.io),
            EFER => self.set_efer(value),
            FS_BASE => self.set_base(SegReg::Fs, value),
            GS_BASE => self.set_base(SegReg::Gs, value),
            // Nothing here predicts.
            PRED_CMD
                if self.cpu.shows(7, |leaf| leaf.edx, 26) || self.cpu.shows(0x8000_0008, |l| l.ebx, 12) =>
            {
                value & !1 == 0
            }
            PATCH_LEVEL | NB_CFG => true,
            _ => self.store_msr(index, value),
        }
    }

    fn store_msr(&mut self, index: u32, value: u64) -> bool {
        let cpu = &mut *self.cpu;
        if !cpu.has_msr(index) || !cpu.acceptable(index, value) {
            return false;
        }
        let Some(slot) = cpu.msrs.slot(index) else {
            return false;
        };
        *slot = value;
        match index {
            pvclock::WALL_CLOCK | pvclock::WALL_CLOCK_LEGACY => self.write_wall_clock(),
            pvclock::SYSTEM_TIME | pvclock::SYSTEM_TIME_LEGACY => self.write_system_time(),
            _ => {}
        }
        true
    }

    /// Software moves the time-stamp counter; the paravirtual clock stays.
    fn move_tsc(&mut self, delta: u64) {
        self.cpu.apic.tsc().advance(delta);
        self.cpu.msrs.tsc_adjust = self.cpu.msrs.tsc_adjust.wrapping_add(delta);
        self.write_system_time();
    }

    fn set_base(&mut self, register: SegReg, base: u64) -> bool {
        if is_canonical(base) {
            self.cpu.segments[register as usize].base = base;
        }
        is_canonical(base)
    }

    /// EFER (Intel SDM vol. 3, 2.2.1): LMA follows from LME and CR0.PG, and LME stays while paging is on.
    fn set_efer(&mut self, value: u64) -> bool {
        let cpu = &mut *self.cpu;
        let auto_ibrs = if cpu.shows(0x8000_0021, |leaf| leaf.eax, 8) {
            EFER_AUTO_IBRS
        } else {
            0
        };
        let settable = control::EFER_SCE | control::EFER_LME | control::EFER_NXE | auto_ibrs;
        let value = value & !control::EFER_LMA;
        let changed = (value ^ cpu.efer) & settable;
        let paging = cpu.cr0 & control::CR0_PG != 0;
        if value & !settable != 0 || changed & control::EFER_LME != 0 && paging {
            return false;
        }
        cpu.efer = value | cpu.efer & control::EFER_LMA;
        if changed & control::EFER_NXE != 0 {
            cpu.tlb.flush(false);
        }
        cpu.update_mode();
        true
    }
}

impl Cpu {
    /// Whether this CPU has a register that [`SystemMsrs`] keeps: what CPUID says about it.
    pub(super) fn has_msr(&self, index: u32) -> bool {
        match index {
            msr::TSC_ADJUST => self.shows(7, |leaf| leaf.ebx, 1),
            // SPEC_CTRL by Intel's number, or IBRS, STIBP or SSBD by AMD's.
            SPEC_CTRL => {
                self.shows(7, |leaf| leaf.edx, 26)
                    || [14, 15, 24]
                        .iter()
                        .any(|&bit| self.shows(0x8000_0008, |leaf| leaf.ebx, bit))
            }
            0x200..=0x20f | 0x250..=0x26f | msr::MTRR_DEF_TYPE => self.shows(1, |leaf| leaf.edx, 12),
            msr::SYSENTER_CS..=msr::SYSENTER_EIP => self.shows(1, |leaf| leaf.edx, 11),
            TSC_AUX => self.shows(0x8000_0001, |leaf| leaf.edx, 27) || self.shows(7, |leaf| leaf.ecx, 22),
            pvclock::WALL_CLOCK_LEGACY | pvclock::SYSTEM_TIME_LEGACY => self.pv_feature(0),
            pvclock::WALL_CLOCK | pvclock::SYSTEM_TIME => self.pv_feature(3),
            _ => true,
        }
    }

    /// Whether a store of `value` is one that the processor takes.
    pub(super) fn acceptable(&self, index: u32, value: u64) -> bool {
        match index {
            msr::LSTAR | CSTAR | msr::KERNEL_GS_BASE | msr::SYSENTER_ESP | msr::SYSENTER_EIP => {
                is_canonical(value)
            }
            FMASK | TSC_AUX => value >> 32 == 0,
            msr::PAT => value.to_le_bytes().into_iter().all(is_pat_type),
            0x200..=0x20f => acceptable_variable(index, value),
            0x250..=0x26f => value.to_le_bytes().into_iter().all(is_mtrr_type),
            // Type, fixed enable, enable.
            msr::MTRR_DEF_TYPE => value & !0xcff == 0 && is_mtrr_type(value as u8),
            // IBRS, STIBP, SSBD.
            SPEC_CTRL => value & !7 == 0,
            // Last-branch records, single steps of branches, and four pins.
            DEBUGCTL => value & !0x3f == 0,
            // KVM lets these through: monitor at level 3, flush filter, cache line writes, address mask.
            HWCR => value & !(HWCR_TSC_FREQUENCY | 0x1_0158) == 0,
            DE_CFG => value & !DE_CFG_LFENCE == 0,
            _ => true,
        }
    }
}

/// Memory types of the PAT (Intel SDM vol. 3, 12.12.2): all but 2 and 3 up to 7.
fn is_pat_type(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 4..=7)
}

/// Memory types of MTRRs (Intel SDM vol. 3, table 12-8).
fn is_mtrr_type(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 4..=6)
}

/// A variable MTRR: even numbers are bases with a type, odd ones masks with a valid bit.
fn acceptable_variable(index: u32, value: u64) -> bool {
    const ADDRESS: u64 = ((1 << crate::memory::PHYSICAL_BITS) - 1) & !0xfff;
    if index.is_multiple_of(2) {
        value & !(ADDRESS | 0xff) == 0 && is_mtrr_type(value as u8)
    } else {
        value & !(ADDRESS | 1 << 11) == 0
    }
}
