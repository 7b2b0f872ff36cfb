//! Instructions that change or show how the x87 works, not what it holds.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::status;
use crate::cpu::control as cr;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Wait => wait,
        Mnemonic::Fninit => fninit,
        Mnemonic::Fnclex => fnclex,
        Mnemonic::Fldcw => fldcw,
        Mnemonic::Fnstcw => fnstcw,
        Mnemonic::Fnstsw => fnstsw,
        Mnemonic::Emms => emms,
        // Switched things on and off that the 8087 and 80287 had (Intel SDM vol. 3, 23.18.6 and 23.18.7).
        Mnemonic::Fnsetpm | Mnemonic::Fneni | Mnemonic::Fndisi => nothing,
        _ => return None,
    };
    Some(handler)
}

fn wait(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let watched = cr::CR0_MP | cr::CR0_TS;
    if exec.cpu.cr0 & watched == watched {
        return Err(Exception::NO_MATH);
    }
    exec.report_x87()
}

fn fninit(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_x87()?;
    exec.cpu.x87.initialize();
    Ok(())
}

fn fnclex(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_x87()?;
    // The stack fault (0x40) is a flag here, though not one with a mask.
    exec.cpu.x87.status &= !(status::FLAGS | 0x40);
    exec.cpu.x87.summarize();
    Ok(())
}

fn fldcw(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.wait_x87()?;
    let value = exec.read(instruction, 0)?;
    exec.cpu.x87.set_control(value as u16);
    Ok(())
}

fn fnstcw(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_x87()?;
    exec.write(instruction, 0, exec.cpu.x87.control.into())
}

fn fnstsw(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_x87()?;
    let value = exec.cpu.x87.status.into();
    if instruction.op_kind(0) == OpKind::Register {
        exec.set_gpr(instruction.op_register(0), value);
        return Ok(());
    }
    exec.write(instruction, 0, value)
}

fn emms(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_mmx()?;
    exec.cpu.x87.turn_to(0);
    exec.cpu.x87.tags = 0;
    Ok(())
}

fn nothing(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    exec.check_x87()
}
