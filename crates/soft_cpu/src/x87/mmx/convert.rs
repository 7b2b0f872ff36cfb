//! Conversions between the integers of an MMX register and the numbers of an XMM register.

use iced_x86::{Code, Instruction, OpKind};

use super::lanes::{double_words, from_double_words};
use super::transfer::xmm;
use crate::cpu::control as cr;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};
use crate::x87::float::{Context, Float, Round, Width, from_integer, from_memory, to_integer, to_memory};

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

/// Bits of MXCSR (Intel SDM vol. 1, 10.2.3).
const DENORMALS_ARE_ZEROS: u32 = 1 << 6;
const MASKS: u32 = 7;
const ROUNDING: u32 = 13;

/// How MXCSR wants things computed: its rounding control and masks are those of the x87 elsewhere.
fn context(mxcsr: u32) -> Context {
    let control = (mxcsr >> MASKS & 0x3f) | (mxcsr >> ROUNDING & 3) << 10;
    Context::of(control as u16)
}

/// Adds flags to MXCSR. #XM where one of them is not masked, or #UD where the system does not know #XM.
fn report(exec: &mut Exec<'_>, flags: u16) -> Result<(), Exception> {
    let flags = u32::from(flags & 0x3f);
    exec.cpu.vector.mxcsr |= flags;
    if flags & !(exec.cpu.vector.mxcsr >> MASKS) == 0 {
        return Ok(());
    }
    Err(if exec.cpu.cr4 & cr::CR4_OSXMMEXCPT != 0 {
        Exception::SIMD
    } else {
        Exception::UNDEFINED
    })
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
    let context = context(exec.cpu.vector.mxcsr);
    let results = lanes.map(|lane| to_memory(from_integer((lane as i32).into()), Width::Single, &context));
    report(exec, results[0].1 | results[1].1)?;
    enter_mmx_for_register(exec, instruction);
    let register = &mut exec.cpu.vector.registers[xmm(instruction.op_register(0))];
    register.0[0] = from_double_words(results.map(|(bits, _)| bits as u32));
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
    finish(exec, instruction, lanes, Width::Single, truncates)
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
    finish(exec, instruction, lanes, Width::Double, truncates)
}

fn finish(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    lanes: [u64; 2],
    width: Width,
    truncates: bool,
) -> Result<(), Exception> {
    let mxcsr = exec.cpu.vector.mxcsr;
    let round = if truncates {
        Round::Zero
    } else {
        context(mxcsr).round
    };
    let results = lanes.map(|lane| {
        let (value, denormal) = from_memory(lane, width);
        let is_zero = denormal && mxcsr & DENORMALS_ARE_ZEROS != 0;
        to_integer(if is_zero { Float::ZERO } else { value }, 32, round)
    });
    report(exec, results[0].1 | results[1].1)?;
    exec.finish_mm(
        instruction,
        from_double_words(results.map(|(value, _)| value as u32)),
    );
    Ok(())
}
