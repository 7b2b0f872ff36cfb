//! What decides how code is decoded and how addresses are translated.

use hypervisor::x86_64::SegmentAttributes;

use super::{Cpu, SegReg, control, flags};

/// Which of the TLB's sets an access uses: they differ in what it may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum TlbSet {
    /// Code of privilege level 3.
    User = 0,
    /// Supervisor code; SMAP applies where it is on.
    Supervisor = 1,
    /// Supervisor code that has lifted SMAP by RFLAGS.AC.
    SupervisorOpen = 2,
}

/// How vector instructions may be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum VectorMode {
    /// By their handlers alone: they raise exceptions, or may.
    Handlers,
    /// SSE by the host as well.
    Sse,
    /// AVX, too.
    Avx,
}

/// Follows from other registers; kept because every instruction asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mode {
    /// Width of code: 16, 32 or 64.
    pub(crate) bits: u8,
    /// Width of the stack pointer: 16, 32 or 64.
    pub(crate) stack_bits: u8,
    /// Current privilege level.
    pub(crate) cpl: u8,
    /// What explicit accesses of this code use.
    pub(crate) set: TlbSet,
    /// #AC is on: CR0.AM, RFLAGS.AC, level 3.
    pub(crate) alignment_checks: bool,
    /// Follows from CR0, CR4, XCR0 and the masks of MXCSR.
    pub(crate) vector: VectorMode,
}

impl Mode {
    /// Real mode, as after reset.
    pub(crate) const RESET: Self = Self {
        bits: 16,
        stack_bits: 16,
        cpl: 0,
        set: TlbSet::Supervisor,
        alignment_checks: false,
        vector: VectorMode::Handlers,
    };

    pub(super) fn of(cpu: &Cpu) -> Self {
        let cs = cpu.segment(SegReg::Cs).attributes;
        let long = cpu.efer & control::EFER_LMA != 0 && cs.contains(SegmentAttributes::LONG);
        let width = |attributes: SegmentAttributes| {
            if attributes.contains(SegmentAttributes::BIG) {
                32
            } else {
                16
            }
        };
        let ac = cpu.rflags & flags::AC != 0;
        let cpl = cpu.privilege();
        let set = match (cpl, cpu.cr4 & control::CR4_SMAP != 0 && ac) {
            (3, _) => TlbSet::User,
            (_, true) => TlbSet::SupervisorOpen,
            (_, false) => TlbSet::Supervisor,
        };
        Self {
            bits: if long { 64 } else { width(cs) },
            stack_bits: if long {
                64
            } else {
                width(cpu.segment(SegReg::Ss).attributes)
            },
            cpl,
            set,
            alignment_checks: cpl == 3 && ac && cpu.cr0 & control::CR0_AM != 0,
            vector: vector_mode(cpu),
        }
    }

    /// The mask of an offset or address in this mode.
    pub(crate) fn mask(bits: u8) -> u64 {
        match bits {
            16 => 0xffff,
            32 => 0xffff_ffff,
            _ => u64::MAX,
        }
    }
}

fn vector_mode(cpu: &Cpu) -> VectorMode {
    /// The six exception masks (Intel SDM vol. 1, 10.2.3).
    const MASKS: u32 = 0x1f80;
    /// SSE and AVX state.
    const AVX_STATE: u64 = 6;
    let forbidden = cpu.cr0 & (control::CR0_EM | control::CR0_TS) != 0;
    if forbidden || cpu.cr4 & control::CR4_OSFXSR == 0 || cpu.vector.mxcsr & MASKS != MASKS {
        return VectorMode::Handlers;
    }
    let avx = cpu.cr4 & control::CR4_OSXSAVE != 0 && cpu.xcr0 & AVX_STATE == AVX_STATE;
    if avx { VectorMode::Avx } else { VectorMode::Sse }
}
