//! Control registers (Intel SDM vol. 3, 2.5), and what throws remembered translations away.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::cpu::{Cpu, SegReg, control as c, flags};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};
use crate::memory::{PHYSICAL_BITS, is_canonical};

use hypervisor::x86_64::{CpuidLeaf, SegmentAttributes as A, find_leaf};

/// The bits of CR0 that exist; others are ignored below bit 32.
const CR0: u64 = c::CR0_PE
    | c::CR0_MP
    | c::CR0_EM
    | c::CR0_TS
    | c::CR0_ET
    | c::CR0_NE
    | c::CR0_WP
    | c::CR0_AM
    | c::CR0_NW
    | c::CR0_CD
    | c::CR0_PG;
/// What `LMSW` reaches.
const MACHINE_STATUS: u64 = c::CR0_PE | c::CR0_MP | c::CR0_EM | c::CR0_TS;
/// CR4.VME, CR4.PVI and CR4.MCE.
const CR4_VIRTUAL_8086: u64 = 3;
const CR4_MCE: u64 = 1 << 6;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Mov if is_control(instruction, 0) => load,
        Mnemonic::Mov if is_control(instruction, 1) => store,
        Mnemonic::Lmsw => lmsw,
        Mnemonic::Smsw => smsw,
        Mnemonic::Clts => clts,
        Mnemonic::Invlpg => invlpg,
        // There are no caches.
        Mnemonic::Wbinvd | Mnemonic::Invd => |exec, _| exec.check_privilege(),
        Mnemonic::Clac => |exec, _| access_check_flag(exec, 0),
        Mnemonic::Stac => |exec, _| access_check_flag(exec, flags::AC),
        _ => return None,
    };
    Some(handler)
}

fn is_control(instruction: &Instruction, index: u32) -> bool {
    instruction.op_kind(index) == OpKind::Register && instruction.op_register(index).is_cr()
}

fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let register = existing(instruction.op0_register())?;
    exec.check_privilege()?;
    let value = exec.gpr(instruction.op1_register());
    match register {
        Register::CR0 => exec.set_cr0(value),
        Register::CR2 => {
            exec.cpu.cr2 = value;
            Ok(())
        }
        Register::CR3 => exec.set_cr3(value),
        Register::CR4 => exec.set_cr4(value),
        _ if value & !0xf != 0 => Err(Exception::PROTECTION),
        _ => {
            exec.cpu.apic.set_tpr(value as u8);
            Ok(())
        }
    }
}

fn store(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let register = existing(instruction.op1_register())?;
    exec.check_privilege()?;
    let cpu = &*exec.cpu;
    let value = match register {
        Register::CR0 => cpu.cr0,
        Register::CR2 => cpu.cr2,
        Register::CR3 => cpu.cr3,
        Register::CR4 => cpu.cr4,
        _ => cpu.apic.tpr().into(),
    };
    exec.set_gpr(instruction.op0_register(), value);
    Ok(())
}

/// #UD for the numbers that name nothing.
fn existing(register: Register) -> Result<Register, Exception> {
    use Register as R;
    match register {
        R::CR0 | R::CR2 | R::CR3 | R::CR4 | R::CR8 => Ok(register),
        _ => Err(Exception::UNDEFINED),
    }
}

/// Protected mode can be entered this way, but not left.
fn lmsw(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_privilege()?;
    let value = if instruction.op0_kind() == OpKind::Register {
        exec.gpr(instruction.op0_register())
    } else {
        let (segment, offset) = exec.effective_address(instruction);
        exec.load(segment, offset, 2)?
    };
    let kept = exec.cpu.cr0 & (!MACHINE_STATUS | c::CR0_PE);
    exec.set_cr0(kept | value & MACHINE_STATUS)
}

/// To memory 16 bits; a register gets as much as it holds.
fn smsw(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_user_mode_prevention()?;
    let value = exec.cpu.cr0;
    if instruction.op0_kind() == OpKind::Register {
        exec.set_gpr(instruction.op0_register(), value);
        return Ok(());
    }
    let (segment, offset) = exec.effective_address(instruction);
    exec.store(segment, offset, 2, value)
}

fn clts(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_privilege()?;
    exec.cpu.cr0 &= !c::CR0_TS;
    exec.cpu.update_mode();
    Ok(())
}

fn invlpg(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_privilege()?;
    let (segment, offset) = exec.effective_address(instruction);
    let narrow = exec.cpu.mode.bits != 64;
    let based = narrow || matches!(segment, SegReg::Fs | SegReg::Gs);
    let base = if based { exec.cpu.segment(segment).base } else { 0 };
    let linear = base.wrapping_add(offset);
    if narrow {
        exec.cpu.flush_page(linear & 0xffff_ffff);
    } else if is_canonical(linear) {
        exec.cpu.flush_page(linear);
    }
    Ok(())
}

/// `CLAC` and `STAC` do not exist for programs.
fn access_check_flag(exec: &mut Exec<'_>, value: u64) -> Result<(), Exception> {
    if exec.cpu.cpl() != 0 {
        return Err(Exception::UNDEFINED);
    }
    exec.cpu.set_rflags(exec.cpu.rflags & !flags::AC | value);
    Ok(())
}

impl Exec<'_> {
    /// A store to CR0: modes are entered and left here (Intel SDM vol. 3, 10.8.5 and 10.9).
    fn set_cr0(&mut self, value: u64) -> Result<(), Exception> {
        let cpu = &mut *self.cpu;
        let paging = value & c::CR0_PG != 0;
        let impossible = paging && value & c::CR0_PE == 0
            || value & c::CR0_NW != 0 && value & c::CR0_CD == 0
            || value >> 32 != 0;
        if impossible {
            return Err(Exception::PROTECTION);
        }
        let turned = (value ^ cpu.cr0) & c::CR0_PG != 0;
        let long_code = cpu.segment(SegReg::Cs).attributes.contains(A::LONG);
        let mut efer = cpu.efer;
        if turned && paging && efer & c::EFER_LME != 0 {
            if cpu.cr4 & c::CR4_PAE == 0 || long_code {
                return Err(Exception::PROTECTION);
            }
            efer |= c::EFER_LMA;
        } else if turned && !paging {
            if cpu.mode.bits == 64 {
                return Err(Exception::PROTECTION);
            }
            efer &= !c::EFER_LMA;
        }
        let changed = value ^ cpu.cr0;
        (cpu.cr0, cpu.efer) = (value & CR0 | c::CR0_ET, efer);
        if changed & (c::CR0_PE | c::CR0_PG | c::CR0_WP) != 0 {
            cpu.tlb.flush(false);
        }
        cpu.update_mode();
        Ok(())
    }

    fn set_cr3(&mut self, value: u64) -> Result<(), Exception> {
        if value >> PHYSICAL_BITS != 0 {
            return Err(Exception::PROTECTION);
        }
        self.cpu.cr3 = value;
        self.cpu.tlb.flush(true);
        Ok(())
    }

    fn set_cr4(&mut self, value: u64) -> Result<(), Exception> {
        const TRANSLATION: u64 = c::CR4_PSE | c::CR4_PAE | c::CR4_PGE | c::CR4_SMEP | c::CR4_SMAP;
        let cpu = &mut *self.cpu;
        let leaves_long = cpu.long_mode() && value & c::CR4_PAE == 0;
        if value & !cpu.cr4_bits() != 0 || leaves_long {
            return Err(Exception::PROTECTION);
        }
        let changed = value ^ cpu.cr4;
        cpu.cr4 = value;
        if changed & TRANSLATION != 0 {
            cpu.tlb.flush(false);
        }
        cpu.update_mode();
        Ok(())
    }
}

impl Cpu {
    /// Whether a bit of CPUID's answer is set.
    pub(super) fn shows(&self, leaf: u32, register: fn(&CpuidLeaf) -> u32, bit: u32) -> bool {
        find_leaf(&self.cpuid, leaf, 0).is_some_and(|leaf| register(leaf) >> bit & 1 != 0)
    }

    /// The bits of CR4 that this CPU has.
    fn cr4_bits(&self) -> u64 {
        let optional = [
            (self.shows(1, |leaf| leaf.edx, 1), CR4_VIRTUAL_8086),
            (self.shows(1, |leaf| leaf.edx, 7), CR4_MCE),
            (self.shows(1, |leaf| leaf.ecx, 26), c::CR4_OSXSAVE),
            (self.shows(7, |leaf| leaf.ebx, 0), c::CR4_FSGSBASE),
            (self.shows(7, |leaf| leaf.ebx, 7), c::CR4_SMEP),
            (self.shows(7, |leaf| leaf.ebx, 20), c::CR4_SMAP),
            (self.shows(7, |leaf| leaf.ecx, 2), c::CR4_UMIP),
        ];
        let always = c::CR4_TSD
            | c::CR4_DE
            | c::CR4_PSE
            | c::CR4_PAE
            | c::CR4_PGE
            | c::CR4_PCE
            | c::CR4_OSFXSR
            | c::CR4_OSXMMEXCPT;
        optional
            .into_iter()
            .filter(|(there, _)| *there)
            .fold(always, |bits, (_, bit)| bits | bit)
    }
}
