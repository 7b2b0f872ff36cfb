//! The `XSAVE` feature set (Intel SDM vol. 1, chapter 13). `IA32_XSS` is 0: no supervisor state exists.

use hypervisor::x86_64::find_leaf;
use iced_x86::{Code, CpuidFeature, Instruction};

use super::X87;
use super::area::{self, LEGACY, MXCSR_INITIAL, MXCSR_RANGE, Pointers, X87_RANGES, quad};
use super::fxsave::shown;
use crate::cpu::{Cpu, SegReg, control as cr};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};
use crate::memory::Access;

/// Bits of XCR0, XSTATE_BV, XCOMP_BV.
const X87_STATE: u64 = 1 << 0;
const SSE_STATE: u64 = 1 << 1;
const AVX_STATE: u64 = 1 << 2;
/// In XCOMP_BV: the area is in the compacted format.
const COMPACTED: u64 = 1 << 63;

/// The header after the legacy region: XSTATE_BV, XCOMP_BV, reserved bytes.
const HEADER: usize = LEGACY;
const XCOMP_BV: usize = HEADER + 8;
const HEADER_REST: usize = HEADER + 16;
/// Upper halves of the YMM registers. They come first after the header, so both formats have them here.
const AVX: usize = HEADER + 64;
/// Size of an area with all components there are. CPUID leaf 0xd says the same.
const AREA: usize = AVX + 256;

/// How an instruction of this set saves.
#[derive(Clone, Copy)]
struct Saving {
    compacted: bool,
    /// Components in their initial configuration are not written.
    skips_initial: bool,
    /// Only the operating system may use it.
    supervisor: bool,
}

const XSAVE: Saving = Saving {
    compacted: false,
    skips_initial: false,
    supervisor: false,
};
const XSAVEOPT: Saving = Saving {
    skips_initial: true,
    ..XSAVE
};
const XSAVEC: Saving = Saving {
    compacted: true,
    ..XSAVEOPT
};
const XSAVES: Saving = Saving {
    supervisor: true,
    ..XSAVEC
};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    use Pointers::{Narrow, Wide};
    let handler: Handler = match instruction.code() {
        Code::Xgetbv => xgetbv,
        Code::Xsetbv => xsetbv,
        Code::Xsave_mem => |exec, instruction| save(exec, instruction, Narrow, XSAVE),
        Code::Xsave64_mem => |exec, instruction| save(exec, instruction, Wide, XSAVE),
        Code::Xsaveopt_mem => |exec, instruction| save(exec, instruction, Narrow, XSAVEOPT),
        Code::Xsaveopt64_mem => |exec, instruction| save(exec, instruction, Wide, XSAVEOPT),
        Code::Xsavec_mem => |exec, instruction| save(exec, instruction, Narrow, XSAVEC),
        Code::Xsavec64_mem => |exec, instruction| save(exec, instruction, Wide, XSAVEC),
        Code::Xsaves_mem => |exec, instruction| save(exec, instruction, Narrow, XSAVES),
        Code::Xsaves64_mem => |exec, instruction| save(exec, instruction, Wide, XSAVES),
        Code::Xrstor_mem => |exec, instruction| restore(exec, instruction, Narrow, false),
        Code::Xrstor64_mem => |exec, instruction| restore(exec, instruction, Wide, false),
        Code::Xrstors_mem => |exec, instruction| restore(exec, instruction, Narrow, true),
        Code::Xrstors64_mem => |exec, instruction| restore(exec, instruction, Wide, true),
        _ => return None,
    };
    Some(handler)
}

/// XINUSE: the components that are not in their initial configuration (Intel SDM vol. 1, 13.6), of vector
/// registers the first `count`. MXCSR counts for none.
pub(super) fn in_use(cpu: &Cpu, count: usize) -> u64 {
    let registers = cpu.vector.registers.iter().take(count);
    let mut bits = 0;
    for register in registers {
        bits |= u64::from(register.0[0] | register.0[1] != 0) << 1;
        bits |= u64::from(register.0[2] | register.0[3] != 0) << 2;
    }
    bits | u64::from(cpu.x87 != X87::default())
}

fn check(exec: &Exec<'_>) -> Result<(), Exception> {
    if exec.cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(Exception::UNDEFINED);
    }
    Ok(())
}

fn check_available(exec: &Exec<'_>, supervisor: bool) -> Result<(), Exception> {
    check(exec)?;
    if exec.cpu.cr0 & cr::CR0_TS != 0 {
        return Err(Exception::NO_MATH);
    }
    if supervisor && exec.cpu.cpl() != 0 {
        return Err(Exception::PROTECTION);
    }
    Ok(())
}

fn edx_eax(cpu: &Cpu) -> u64 {
    cpu.gpr[Cpu::RAX] & 0xffff_ffff | cpu.gpr[Cpu::RDX] << 32
}

fn xgetbv(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    check(exec)?;
    let cpu = &mut *exec.cpu;
    // XGETBV with ECX 1 is there where leaf 0xd says so.
    let has_xinuse = find_leaf(&cpu.cpuid, 0xd, 1).is_some_and(|leaf| leaf.eax & 1 << 2 != 0);
    let value = match cpu.gpr[Cpu::RCX] as u32 {
        0 => cpu.xcr0,
        1 if has_xinuse => cpu.xcr0 & in_use(cpu, cpu.vector_count()),
        _ => return Err(Exception::PROTECTION),
    };
    (cpu.gpr[Cpu::RAX], cpu.gpr[Cpu::RDX]) = (value & 0xffff_ffff, value >> 32);
    Ok(())
}

fn xsetbv(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    check(exec)?;
    let cpu = &mut *exec.cpu;
    let value = edx_eax(cpu);
    let supported = find_leaf(&cpu.cpuid, 0xd, 0).map_or(X87_STATE | SSE_STATE, |leaf| {
        u64::from(leaf.eax) | u64::from(leaf.edx) << 32
    });
    let exists = cpu.gpr[Cpu::RCX] as u32 == 0 && value & !supported == 0;
    // AVX state is the rest of SSE state (Intel SDM vol. 1, 13.3).
    let whole = value & X87_STATE != 0 && (value & AVX_STATE == 0 || value & SSE_STATE != 0);
    if cpu.cpl() != 0 || !exists || !whole {
        return Err(Exception::PROTECTION);
    }
    cpu.xcr0 = value;
    Ok(())
}

/// Segment and offset of the area.
fn place(exec: &Exec<'_>, instruction: &Instruction, access: Access) -> Result<(SegReg, u64), Exception> {
    exec.aligned_operand(instruction, AVX as u64, 64, access)
}

/// The instructions that save (Intel SDM vol. 1, 13.7 and 13.9 to 13.11).
fn save(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    pointers: Pointers,
    saving: Saving,
) -> Result<(), Exception> {
    check_available(exec, saving.supervisor)?;
    let (segment, offset) = place(exec, instruction, Access::Write)?;
    let requested = exec.cpu.xcr0 & edx_eax(exec.cpu);
    let count = exec.cpu.vector_count();
    let mut used = in_use(exec.cpu, count);
    if saving.compacted && exec.cpu.vector.mxcsr != MXCSR_INITIAL {
        // There MXCSR is part of SSE state.
        used |= SSE_STATE;
    }
    let mut bytes = [0; AREA];
    let (xstate_bv, header_end) = if saving.compacted {
        bytes[XCOMP_BV..HEADER_REST].copy_from_slice(&(requested | COMPACTED).to_le_bytes());
        (requested & used, HEADER_REST)
    } else {
        let old = exec.load(segment, offset.wrapping_add(HEADER as u64), 8)?;
        (old & !requested | requested & used, XCOMP_BV)
    };
    bytes[HEADER..XCOMP_BV].copy_from_slice(&xstate_bv.to_le_bytes());
    let written = if saving.skips_initial {
        requested & used
    } else {
        requested
    };
    let has_mxcsr = if saving.compacted {
        written & SSE_STATE != 0
    } else {
        requested & (SSE_STATE | AVX_STATE) != 0
    };
    collect(exec.cpu, pointers, &mut bytes);
    let when = |wanted, range| if wanted { range } else { (0, 0) };
    let ranges = [
        when(written & X87_STATE != 0, X87_RANGES[0]),
        when(has_mxcsr, MXCSR_RANGE),
        when(written & X87_STATE != 0, X87_RANGES[1]),
        when(written & SSE_STATE != 0, area::xmm_range(count)),
        (HEADER, header_end),
        when(written & AVX_STATE != 0, (AVX, AVX + count * 16)),
    ];
    exec.write_ranges(segment, offset, &bytes, &ranges)
}

/// Fills in all components.
fn collect(cpu: &Cpu, pointers: Pointers, bytes: &mut [u8; AREA]) {
    if let Some(legacy) = bytes.first_chunk_mut::<LEGACY>() {
        area::put_x87(&cpu.x87, shown(cpu, pointers), legacy);
        area::put_mxcsr(cpu.vector.mxcsr, legacy);
        area::put_xmm(&cpu.vector, legacy);
    }
    area::put_halves(&cpu.vector, 2, &mut bytes[AVX..]);
}

/// The instructions that restore (Intel SDM vol. 1, 13.8 and 13.12).
fn restore(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    pointers: Pointers,
    supervisor: bool,
) -> Result<(), Exception> {
    check_available(exec, supervisor)?;
    let (segment, offset) = place(exec, instruction, Access::Read)?;
    let mut bytes = [0; AREA];
    exec.read_bytes(segment, offset, &mut bytes[..AVX])?;
    let requested = exec.cpu.xcr0 & edx_eax(exec.cpu);
    let (xstate_bv, xcomp_bv) = (quad(&bytes, HEADER), quad(&bytes, XCOMP_BV));
    check_header(exec.cpu, &bytes, supervisor)?;
    let compacted = xcomp_bv & COMPACTED != 0;
    let count = exec.cpu.vector_count();
    let loaded = requested & xstate_bv;
    if loaded & AVX_STATE != 0 {
        let from = offset.wrapping_add(AVX as u64);
        exec.read_bytes(segment, from, &mut bytes[AVX..AVX + count * 16])?;
    }
    let Some(legacy) = bytes.first_chunk::<LEGACY>() else {
        return Ok(());
    };
    let has_mxcsr = if compacted {
        loaded & SSE_STATE != 0
    } else {
        requested & (SSE_STATE | AVX_STATE) != 0
    };
    let cpu = &mut *exec.cpu;
    if has_mxcsr {
        cpu.vector.mxcsr = area::get_mxcsr(legacy).ok_or(Exception::PROTECTION)?;
    } else if compacted && requested & SSE_STATE != 0 {
        cpu.vector.mxcsr = MXCSR_INITIAL;
    }
    // The masks decide what may be translated.
    cpu.update_mode();
    if requested & X87_STATE != 0 {
        let initial = loaded & X87_STATE == 0;
        cpu.x87 = if initial {
            X87::default()
        } else {
            area::get_x87(legacy, pointers)
        };
    }
    if requested & SSE_STATE != 0 {
        let initial = loaded & SSE_STATE == 0;
        area::get_xmm(cpu, count, if initial { &[0; LEGACY] } else { legacy });
    }
    if requested & AVX_STATE != 0 {
        // Not read from memory, these are the zeros of the initial configuration.
        area::get_halves(&mut cpu.vector, 2, count, &bytes[AVX..]);
    }
    Ok(())
}

/// #GP for a header that no instruction of this CPU has written.
fn check_header(cpu: &Cpu, bytes: &[u8; AREA], supervisor: bool) -> Result<(), Exception> {
    let (xstate_bv, xcomp_bv) = (quad(bytes, HEADER), quad(bytes, XCOMP_BV));
    let compacted = xcomp_bv & COMPACTED != 0 && cpu.features.has(CpuidFeature::XSAVEC);
    let (present, reserved) = if compacted {
        (xcomp_bv & !COMPACTED, &bytes[HEADER_REST..AVX])
    } else {
        // 16 bytes behind XSTATE_BV, the first of them XCOMP_BV.
        (cpu.xcr0, &bytes[XCOMP_BV..XCOMP_BV + 16])
    };
    let fits = present & !cpu.xcr0 == 0 && xstate_bv & !present == 0;
    let clean = reserved.iter().all(|&byte| byte == 0);
    if fits && clean && (compacted || !supervisor) {
        return Ok(());
    }
    Err(Exception::PROTECTION)
}
