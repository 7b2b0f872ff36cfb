//! Instructions that raise, end, hold off or wait for interrupts.

use iced_x86::{Instruction, Mnemonic};

use super::descriptors::RPL;
use super::far::Return;
use crate::attention::EVENT;
use crate::cpu::flags;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

use hypervisor::x86_64::Activity;

/// RFLAGS.VIF and RFLAGS.VIP.
const VIRTUAL: u64 = 3 << 19;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Int => |exec, instruction| exec.software_interrupt(instruction.immediate8(), true),
        Mnemonic::Int3 => |exec, _| exec.software_interrupt(3, true),
        // Not stopped by the gate's level: it is for hardware debuggers.
        Mnemonic::Int1 => |exec, _| exec.software_interrupt(1, false),
        Mnemonic::Into => into,
        Mnemonic::Iret => iret::<2>,
        Mnemonic::Iretd => iret::<4>,
        Mnemonic::Iretq => iret::<8>,
        Mnemonic::Cli => cli,
        Mnemonic::Sti => sti,
        Mnemonic::Hlt => hlt,
        _ => return None,
    };
    Some(handler)
}

fn into(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    if exec.cpu.rflags & flags::OF == 0 {
        return Ok(());
    }
    exec.software_interrupt(4, true)
}

/// `IRET` (Intel SDM vol. 2). There is neither a way back to another task nor one to virtual-8086 mode: both
/// raise #GP.
fn iret<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let size = S as u64;
    let cpl = exec.cpu.cpl();
    let protected = exec.protected();
    if protected && exec.cpu.rflags & flags::NT != 0 {
        return Err(Exception::PROTECTION);
    }
    let ip = exec.peek(0, S)?;
    let cs = exec.peek(size, S)? as u16;
    let image = exec.peek(2 * size, S)?;
    let to_virtual = image & flags::VM != 0 && cpl == 0;
    if protected && !exec.cpu.long_mode() && to_virtual {
        return Err(Exception::PROTECTION);
    }
    // 64-bit code always pops SS:RSP.
    let with_stack = protected && (exec.cpu.mode.bits == 64 || (cs & RPL) as u8 > cpl);
    let stack = if with_stack {
        let pointer = exec.peek(3 * size, S)?;
        Some((exec.peek(4 * size, S)? as u16, pointer))
    } else {
        None
    };
    let target = Return {
        ip,
        cs,
        stack,
        popped: 3 * size,
    };
    exec.return_to(&target, returned_flags::<S>(exec, image))?;
    let events = &mut exec.cpu.events;
    events.nmi_masked = false;
    if events.nmi_pending {
        // The vCPU's loop is to look for it now.
        exec.cpu.apic.attention().post(EVENT);
    }
    Ok(())
}

/// RFLAGS after `IRET` found `image` on the stack: who may change what.
fn returned_flags<const S: usize>(exec: &Exec<'_>, image: u64) -> u64 {
    let cpl = u64::from(exec.cpu.cpl());
    let mut changed = flags::STATUS | flags::TF | flags::DF | flags::NT;
    if S > 2 {
        changed |= flags::RF | flags::AC | flags::ID;
    }
    if cpl <= (exec.cpu.rflags & flags::IOPL) >> 12 {
        changed |= flags::IF;
    }
    if cpl == 0 {
        changed |= flags::IOPL | if S > 2 { VIRTUAL } else { 0 };
    }
    let after = exec.cpu.rflags & !changed | image & changed;
    // Only breakpoints ask for it, and only before the next instruction: nobody has to clear it then.
    if exec.has_breakpoints() {
        after
    } else {
        after & !flags::RF
    }
}

impl Exec<'_> {
    /// #GP unless RFLAGS.IOPL lets the program do I/O and touch the interrupt flag.
    fn check_interrupt_flag(&self) -> Result<(), Exception> {
        let iopl = (self.cpu.rflags & flags::IOPL) >> 12;
        if self.protected() && u64::from(self.cpu.cpl()) > iopl {
            return Err(Exception::PROTECTION);
        }
        Ok(())
    }

    /// #GP unless this is the operating system.
    pub(super) fn check_privilege(&self) -> Result<(), Exception> {
        if self.cpu.cpl() == 0 {
            Ok(())
        } else {
            Err(Exception::PROTECTION)
        }
    }
}

fn cli(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_interrupt_flag()?;
    exec.cpu.rflags &= !flags::IF;
    Ok(())
}

/// Interrupts wait for one more instruction, where they were off.
fn sti(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_interrupt_flag()?;
    if exec.cpu.rflags & flags::IF == 0 {
        exec.cpu.rflags |= flags::IF;
        exec.cpu.events.shadow_sti = true;
    }
    Ok(())
}

fn hlt(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_privilege()?;
    exec.cpu.activity = Activity::Halted;
    Ok(())
}
