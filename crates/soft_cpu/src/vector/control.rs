//! MXCSR, and clearing registers.

use iced_x86::{Instruction, Mnemonic as M};

use super::drivers::handler;
use super::{MXCSR_MASK, Ymm};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        M::Ldmxcsr | M::Vldmxcsr => handler!(load_mxcsr),
        M::Stmxcsr | M::Vstmxcsr => handler!(store_mxcsr),
        M::Vzeroupper => handler!(zero, |register: Ymm| Ymm([register.0[0], register.0[1], 0, 0])),
        M::Vzeroall => handler!(zero, |_| Ymm::ZERO),
        _ => return None,
    })
}

fn load_mxcsr(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.shape(instruction)?;
    let value = exec.read(instruction, 0)? as u32;
    if value & !MXCSR_MASK != 0 {
        return Err(Exception::PROTECTION);
    }
    exec.cpu.vector.mxcsr = value;
    exec.cpu.update_mode();
    Ok(())
}

fn store_mxcsr(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.shape(instruction)?;
    let value = exec.cpu.vector.mxcsr;
    exec.write(instruction, 0, value.into())
}

/// Changes all registers that code of this mode has.
fn zero(exec: &mut Exec<'_>, instruction: &Instruction, f: impl Fn(Ymm) -> Ymm) -> Result<(), Exception> {
    exec.shape(instruction)?;
    let count = if exec.cpu.mode.bits == 64 { 16 } else { 8 };
    for register in &mut exec.cpu.vector.registers[..count] {
        *register = f(*register);
    }
    Ok(())
}
