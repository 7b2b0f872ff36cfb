//! `FXSAVE` and `FXRSTOR` (Intel SDM vol. 1, 10.5).

use iced_x86::{Code, Instruction};

use super::area::{self, LEGACY, MXCSR_RANGE, Pointers, X87_RANGES};
use crate::cpu::{Cpu, SegReg, control as cr};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};
use crate::memory::Access;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.code() {
        Code::Fxsave_m512byte => |exec, instruction| fxsave(exec, instruction, Pointers::Narrow),
        Code::Fxsave64_m512byte => |exec, instruction| fxsave(exec, instruction, Pointers::Wide),
        Code::Fxrstor_m512byte => |exec, instruction| fxrstor(exec, instruction, Pointers::Narrow),
        Code::Fxrstor64_m512byte => |exec, instruction| fxrstor(exec, instruction, Pointers::Wide),
        _ => return None,
    };
    Some(handler)
}

fn fxsave(exec: &mut Exec<'_>, instruction: &Instruction, pointers: Pointers) -> Result<(), Exception> {
    exec.check_x87()?;
    let (segment, offset) = place(exec, instruction, Access::Write)?;
    let cpu = &*exec.cpu;
    let mut bytes = [0; LEGACY];
    area::put_x87(&cpu.x87, shown(cpu, pointers), &mut bytes);
    area::put_mxcsr(cpu.vector.mxcsr, &mut bytes);
    area::put_xmm(&cpu.vector, &mut bytes);
    let ranges = [
        X87_RANGES[0],
        MXCSR_RANGE,
        X87_RANGES[1],
        area::xmm_range(cpu.vector_count()),
    ];
    let ranges = if has_sse(cpu) { &ranges[..] } else { &X87_RANGES };
    exec.write_ranges(segment, offset, &bytes, ranges)
}

fn fxrstor(exec: &mut Exec<'_>, instruction: &Instruction, pointers: Pointers) -> Result<(), Exception> {
    exec.check_x87()?;
    let (segment, offset) = place(exec, instruction, Access::Read)?;
    let mut bytes = [0; LEGACY];
    exec.read_bytes(segment, offset, &mut bytes)?;
    let cpu = &mut *exec.cpu;
    if has_sse(cpu) {
        cpu.vector.mxcsr = area::get_mxcsr(&bytes).ok_or(Exception::PROTECTION)?;
        let count = cpu.vector_count();
        area::get_xmm(cpu, count, &bytes);
        // The masks decide what may be translated.
        cpu.update_mode();
    }
    cpu.x87 = area::get_x87(&bytes, pointers);
    Ok(())
}

/// AMD's processors show where the x87 was only while an exception is pending (AMD APM vol. 5, FXSAVE).
pub(super) fn shown(cpu: &Cpu, pointers: Pointers) -> Option<Pointers> {
    cpu.x87.pending().then_some(pointers)
}

/// Whether SSE state goes with the rest: not before the operating system says that it knows it.
fn has_sse(cpu: &Cpu) -> bool {
    cpu.cr4 & cr::CR4_OSFXSR != 0
}

fn place(exec: &Exec<'_>, instruction: &Instruction, access: Access) -> Result<(SegReg, u64), Exception> {
    exec.aligned_operand(instruction, LEGACY as u64, 16, access)
}

impl Exec<'_> {
    /// Segment and offset of a memory operand that must be aligned, whatever its type.
    pub(super) fn aligned_operand(
        &self,
        instruction: &Instruction,
        size: u64,
        alignment: u64,
        access: Access,
    ) -> Result<(SegReg, u64), Exception> {
        let (segment, offset) = self.effective_address(instruction);
        let linear = self.linear(segment, offset, size, access)?;
        if linear % alignment != 0 {
            return Err(Exception::PROTECTION);
        }
        Ok((segment, offset))
    }

    /// Writes some ranges of `bytes` to where they belong behind `offset`: all or, where memory is missing, none.
    pub(super) fn write_ranges(
        &mut self,
        segment: SegReg,
        offset: u64,
        bytes: &[u8],
        ranges: &[(usize, usize)],
    ) -> Result<(), Exception> {
        let set = self.cpu.mode.set;
        let filled = ranges.iter().filter(|range| range.0 < range.1);
        for &(from, to) in filled.clone() {
            let len = (to - from) as u64;
            let linear = self.linear(segment, offset.wrapping_add(from as u64), len, Access::Write)?;
            self.linear_probe(set, linear, len, Access::Write)?;
        }
        for &(from, to) in filled {
            self.write_bytes(segment, offset.wrapping_add(from as u64), &bytes[from..to])?;
        }
        Ok(())
    }
}
