//! The fast ways into the operating system and back, and the segment bases that change hands there.
//!
//! As AMD's processors do it (APM vol. 3, SYSCALL, SYSRET): `SYSCALL` works in compatibility and protected mode as
//! well, `SYSRET` checks no address (the fetch at level 3 does), and `SYSENTER` does not exist in IA-32e mode unless
//! CPUID names another vendor.

use iced_x86::{Instruction, Mnemonic};

use super::descriptors::{RPL, is_null};
use crate::cpu::{Cpu, SegReg, control, flags};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};
use crate::memory::is_canonical;

use hypervisor::x86_64::{Segment, SegmentAttributes as A, find_leaf};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Syscall => syscall,
        Mnemonic::Sysret => sysret::<false>,
        Mnemonic::Sysretq => sysret::<true>,
        Mnemonic::Sysenter => sysenter,
        Mnemonic::Sysexit => sysexit::<false>,
        Mnemonic::Sysexitq => sysexit::<true>,
        Mnemonic::Swapgs => swapgs,
        Mnemonic::Rdfsbase => |exec, instruction| read_base(exec, instruction, SegReg::Fs),
        Mnemonic::Rdgsbase => |exec, instruction| read_base(exec, instruction, SegReg::Gs),
        Mnemonic::Wrfsbase => |exec, instruction| write_base(exec, instruction, SegReg::Fs),
        Mnemonic::Wrgsbase => |exec, instruction| write_base(exec, instruction, SegReg::Gs),
        _ => return None,
    };
    Some(handler)
}

/// How wide the code is that a fast transfer goes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits32,
    Bits64,
}

/// A flat code segment of level `cpl`, which no descriptor was read for.
fn code(selector: u64, cpl: u16, width: Width) -> Segment {
    let selector = selector as u16 & !RPL | cpl;
    let flat = match width {
        Width::Bits32 => Segment::flat_code32(selector),
        Width::Bits64 => Segment::flat_code64(selector),
    };
    at_level(flat, cpl)
}

/// The stack segment that goes with it.
fn stack(selector: u64, cpl: u16) -> Segment {
    at_level(Segment::flat_data(selector as u16 & !RPL | cpl), cpl)
}

fn at_level(segment: Segment, cpl: u16) -> Segment {
    let dpl = A::from_bits_retain(u32::from(cpl) << 5);
    Segment {
        attributes: (segment.attributes - A::DPL) | dpl,
        ..segment
    }
}

impl Cpu {
    /// Loads CS and SS of a fast transfer.
    fn set_flat(&mut self, cs: Segment, ss: Segment) {
        self.segments[SegReg::Cs as usize] = cs;
        self.segments[SegReg::Ss as usize] = ss;
        self.update_mode();
    }

    fn is_amd(&self) -> bool {
        // "Auth".
        find_leaf(&self.cpuid, 0, 0).is_none_or(|leaf| leaf.ebx == 0x6874_7541)
    }
}

fn syscall(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let protected = exec.protected();
    let cpu = &mut *exec.cpu;
    if cpu.efer & control::EFER_SCE == 0 || !protected {
        return Err(Exception::UNDEFINED);
    }
    let selector = cpu.msrs.star >> 32;
    cpu.gpr[Cpu::RCX] = cpu.rip;
    if !cpu.long_mode() {
        cpu.rip = cpu.msrs.star & 0xffff_ffff;
        cpu.set_flat(
            code(selector, 0, Width::Bits32),
            stack(selector.wrapping_add(8), 0),
        );
        cpu.set_rflags(cpu.rflags & !(flags::VM | flags::IF | flags::RF));
        return Ok(());
    }
    cpu.gpr[R11] = cpu.rflags & !flags::RF;
    cpu.rip = if cpu.mode.bits == 64 {
        cpu.msrs.lstar
    } else {
        cpu.msrs.cstar
    };
    cpu.set_flat(
        code(selector, 0, Width::Bits64),
        stack(selector.wrapping_add(8), 0),
    );
    cpu.set_rflags(cpu.rflags & !(cpu.msrs.fmask | flags::RF));
    Ok(())
}

const R11: usize = 11;

fn sysret<const WIDE: bool>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    /// What comes from R11: all but RF and VM.
    const FLAGS: u64 = 0x3c_7fd7;
    let protected = exec.protected();
    if exec.cpu.efer & control::EFER_SCE == 0 || !protected {
        return Err(Exception::UNDEFINED);
    }
    exec.check_privilege()?;
    let cpu = &mut *exec.cpu;
    let selector = cpu.msrs.star >> 48;
    let ss = stack(selector.wrapping_add(8), 3);
    let target = cpu.gpr[Cpu::RCX];
    if cpu.mode.bits != 64 {
        cpu.rip = target & 0xffff_ffff;
        cpu.set_flat(code(selector, 3, Width::Bits32), ss);
        cpu.set_rflags(cpu.rflags | flags::IF);
        return Ok(());
    }
    let rflags = cpu.gpr[R11] & FLAGS;
    let (rip, cs) = if WIDE {
        (target, code(selector.wrapping_add(16), 3, Width::Bits64))
    } else {
        (target & 0xffff_ffff, code(selector, 3, Width::Bits32))
    };
    cpu.rip = rip;
    cpu.set_flat(cs, ss);
    cpu.set_rflags(rflags);
    Ok(())
}

fn sysenter(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let protected = exec.protected();
    let cpu = &mut *exec.cpu;
    if cpu.long_mode() && cpu.is_amd() {
        return Err(Exception::UNDEFINED);
    }
    let selector = cpu.msrs.sysenter_cs;
    if !protected || is_null(selector as u16) {
        return Err(Exception::PROTECTION);
    }
    let (width, mask) = if cpu.long_mode() {
        (Width::Bits64, u64::MAX)
    } else {
        (Width::Bits32, 0xffff_ffff)
    };
    cpu.rip = cpu.msrs.sysenter_eip & mask;
    cpu.gpr[Cpu::RSP] = cpu.msrs.sysenter_esp & mask;
    cpu.set_flat(code(selector, 0, width), stack(selector.wrapping_add(8), 0));
    cpu.set_rflags(cpu.rflags & !(flags::VM | flags::IF | flags::RF));
    Ok(())
}

fn sysexit<const WIDE: bool>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    if exec.cpu.long_mode() && exec.cpu.is_amd() {
        return Err(Exception::UNDEFINED);
    }
    let protected = exec.protected();
    let selector = exec.cpu.msrs.sysenter_cs;
    if !protected || is_null(selector as u16) {
        return Err(Exception::PROTECTION);
    }
    exec.check_privilege()?;
    let cpu = &mut *exec.cpu;
    let (rip, rsp) = (cpu.gpr[Cpu::RDX], cpu.gpr[Cpu::RCX]);
    if WIDE && !(is_canonical(rip) && is_canonical(rsp)) {
        return Err(Exception::PROTECTION);
    }
    let (width, mask, offset) = if WIDE {
        (Width::Bits64, u64::MAX, 32)
    } else {
        (Width::Bits32, 0xffff_ffff, 16)
    };
    (cpu.rip, cpu.gpr[Cpu::RSP]) = (rip & mask, rsp & mask);
    cpu.set_flat(
        code(selector.wrapping_add(offset), 3, width),
        stack(selector.wrapping_add(offset + 8), 3),
    );
    Ok(())
}

fn swapgs(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_privilege()?;
    let cpu = &mut *exec.cpu;
    std::mem::swap(
        &mut cpu.segments[SegReg::Gs as usize].base,
        &mut cpu.msrs.kernel_gs_base,
    );
    Ok(())
}

fn check_base_instructions(exec: &Exec<'_>) -> Result<(), Exception> {
    if exec.cpu.mode.bits != 64 || exec.cpu.cr4 & control::CR4_FSGSBASE == 0 {
        return Err(Exception::UNDEFINED);
    }
    Ok(())
}

fn read_base(exec: &mut Exec<'_>, instruction: &Instruction, register: SegReg) -> Result<(), Exception> {
    check_base_instructions(exec)?;
    let base = exec.cpu.segment(register).base;
    exec.set_gpr(instruction.op0_register(), base);
    Ok(())
}

fn write_base(exec: &mut Exec<'_>, instruction: &Instruction, register: SegReg) -> Result<(), Exception> {
    check_base_instructions(exec)?;
    let base = exec.gpr(instruction.op0_register());
    if !is_canonical(base) {
        return Err(Exception::PROTECTION);
    }
    exec.cpu.segments[register as usize].base = base;
    Ok(())
}
