//! Conversions between the integers of an MMX register and the numbers of an XMM register.

use iced_x86::{Code, Instruction, OpKind};

use super::lanes::{double_words, from_double_words};
use super::transfer::xmm;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};
use crate::vector::float::{Double, Format, Rounding, Single, from_integer, to_integer};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.code() {
        Code::Cvtpi2ps_xmm_mmm64 => to_singles,
        Code::Cvtpi2pd_xmm_mmm64 => to_doubles,
        Code::Cvtps2pi_mm_xmmm64 => |exec, instruction| from_singles(exec, instruction, false),
        Code::Cvttps2pi_mm_xmmm64 => |exec, instruction| from_singles(exec, instruction, true),
        Code::Cvtpd2pi_mm_xmmm128 => |exec, instruction| from_doubles(exec, instruction, false),
        Code::Cvttpd2pi_mm_xmmm128 => |exec, instruction| from_doubles(exec, instruction, true),
        _ => return None,
    };
    Some(handler)
}

/// Two integers. From memory they come without any regard to MMX state (AMD APM vol. 5, CVTPI2PS and CVTPI2PD).
fn source(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<[u32; 2], Exception> {
    exec.check_sse()?;
    if instruction.op_kind(1) == OpKind::Register {
        exec.check_mmx()?;
    }
    Ok(double_words(exec.read_mm(instruction, 1)?))
}

fn enter_mmx_for_register(exec: &mut Exec<'_>, instruction: &Instruction) {
    if instruction.op_kind(1) == OpKind::Register {
        exec.cpu.x87.enter_mmx();
    }
}

fn to_singles(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let lanes = source(exec, instruction)?;
    let mut environment = exec.float_environment();
    let results = lanes.map(|lane| from_integer::<Single>(&mut environment, (lane as i32).into()) as u32);
    // The x87 is turned even where the conversion ends in an exception: seen on Zen.
    enter_mmx_for_register(exec, instruction);
    exec.commit_float(&environment)?;
    let register = &mut exec.cpu.vector.registers[xmm(instruction.op_register(0))];
    register.0[0] = from_double_words(results);
    Ok(())
}

fn to_doubles(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let lanes = source(exec, instruction)?;
    enter_mmx_for_register(exec, instruction);
    let register = &mut exec.cpu.vector.registers[xmm(instruction.op_register(0))];
    (register.0[0], register.0[1]) = (
        f64::from(lanes[0] as i32).to_bits(),
        f64::from(lanes[1] as i32).to_bits(),
    );
    Ok(())
}

fn from_singles(exec: &mut Exec<'_>, instruction: &Instruction, truncates: bool) -> Result<(), Exception> {
    exec.check_sse()?;
    exec.check_mmx()?;
    let source = if instruction.op_kind(1) == OpKind::Register {
        exec.cpu.vector.registers[xmm(instruction.op_register(1))].0[0]
    } else {
        exec.read(instruction, 1)?
    };
    let lanes = double_words(source).map(u64::from);
    finish::<Single>(exec, instruction, lanes, truncates)
}

fn from_doubles(exec: &mut Exec<'_>, instruction: &Instruction, truncates: bool) -> Result<(), Exception> {
    exec.check_sse()?;
    exec.check_mmx()?;
    let lanes = if instruction.op_kind(1) == OpKind::Register {
        let register = &exec.cpu.vector.registers[xmm(instruction.op_register(1))];
        [register.0[0], register.0[1]]
    } else {
        let (segment, offset) = exec.aligned_operand(instruction, 16, 16, crate::memory::Access::Read)?;
        let mut bytes = [0; 16];
        exec.read_bytes(segment, offset, &mut bytes)?;
        let both = u128::from_le_bytes(bytes);
        [both as u64, (both >> 64) as u64]
    };
    finish::<Double>(exec, instruction, lanes, truncates)
}

fn finish<F: Format>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    lanes: [u64; 2],
    truncates: bool,
) -> Result<(), Exception> {
    let mut environment = exec.float_environment();
    let rounding = if truncates {
        Rounding::TowardsZero
    } else {
        environment.rounding
    };
    let results = lanes.map(|lane| to_integer::<F>(&mut environment, lane, 32, rounding) as u32);
    // As above.
    exec.cpu.x87.enter_mmx();
    exec.commit_float(&environment)?;
    exec.finish_mm(instruction, from_double_words(results));
    Ok(())
}
