//! The registers of one vCPU, in the form in which instructions use them.

mod features;
mod mode;
mod tsc;

use std::sync::Arc;

use hypervisor::x86_64::{
    Activity, CpuidLeaf, DebugRegisters, PendingEvents, Segment, SegmentAttributes, TableRegister,
};

pub(crate) use features::Features;
pub(crate) use mode::{Mode, TlbSet, VectorMode};
pub(crate) use tsc::{TSC_KHZ, TscClock, TscEpoch};

use crate::apic::Apic;
use crate::blocks::Blocks;
use crate::memory::Tlb;
use crate::observe::{Sampled, Tracer, Undefined};
use crate::system::SystemMsrs;
use crate::translate::{Translator, TranslatorState};
use crate::vector::VectorState;
use crate::x87::X87;

/// Bits of RFLAGS (Intel SDM vol. 1, 3.4.3).
pub(crate) mod flags {
    pub(crate) const CF: u64 = 1 << 0;
    /// Always set.
    pub(crate) const FIXED: u64 = 1 << 1;
    pub(crate) const PF: u64 = 1 << 2;
    pub(crate) const AF: u64 = 1 << 4;
    pub(crate) const ZF: u64 = 1 << 6;
    pub(crate) const SF: u64 = 1 << 7;
    pub(crate) const TF: u64 = 1 << 8;
    pub(crate) const IF: u64 = 1 << 9;
    pub(crate) const DF: u64 = 1 << 10;
    pub(crate) const OF: u64 = 1 << 11;
    pub(crate) const IOPL: u64 = 3 << 12;
    pub(crate) const NT: u64 = 1 << 14;
    pub(crate) const RF: u64 = 1 << 16;
    pub(crate) const VM: u64 = 1 << 17;
    pub(crate) const AC: u64 = 1 << 18;
    pub(crate) const ID: u64 = 1 << 21;
    /// The six that arithmetic sets.
    pub(crate) const STATUS: u64 = CF | PF | AF | ZF | SF | OF;
}

/// Bits of CR0, CR4 and EFER that code asks for (Intel SDM vol. 3, 2.5 and 2.2.1).
pub(crate) mod control {
    pub(crate) const CR0_PE: u64 = 1 << 0;
    pub(crate) const CR0_MP: u64 = 1 << 1;
    pub(crate) const CR0_EM: u64 = 1 << 2;
    pub(crate) const CR0_TS: u64 = 1 << 3;
    pub(crate) const CR0_ET: u64 = 1 << 4;
    pub(crate) const CR0_NE: u64 = 1 << 5;
    pub(crate) const CR0_WP: u64 = 1 << 16;
    pub(crate) const CR0_AM: u64 = 1 << 18;
    pub(crate) const CR0_NW: u64 = 1 << 29;
    pub(crate) const CR0_CD: u64 = 1 << 30;
    pub(crate) const CR0_PG: u64 = 1 << 31;
    pub(crate) const CR4_TSD: u64 = 1 << 2;
    pub(crate) const CR4_DE: u64 = 1 << 3;
    pub(crate) const CR4_PSE: u64 = 1 << 4;
    pub(crate) const CR4_PAE: u64 = 1 << 5;
    pub(crate) const CR4_PGE: u64 = 1 << 7;
    pub(crate) const CR4_PCE: u64 = 1 << 8;
    pub(crate) const CR4_OSFXSR: u64 = 1 << 9;
    pub(crate) const CR4_OSXMMEXCPT: u64 = 1 << 10;
    pub(crate) const CR4_UMIP: u64 = 1 << 11;
    pub(crate) const CR4_FSGSBASE: u64 = 1 << 16;
    pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
    pub(crate) const CR4_SMEP: u64 = 1 << 20;
    pub(crate) const CR4_SMAP: u64 = 1 << 21;
    pub(crate) const EFER_SCE: u64 = 1 << 0;
    pub(crate) const EFER_LME: u64 = 1 << 8;
    pub(crate) const EFER_LMA: u64 = 1 << 10;
    pub(crate) const EFER_NXE: u64 = 1 << 11;
}

/// A segment register, by the number instructions encode it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegReg {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

/// Room for what a signal handler of the host may push and use.
#[repr(C, align(64))]
pub(crate) struct SignalRoom([u8; 32 * 1024]);

impl SignalRoom {
    pub(crate) const EMPTY: Self = Self([0; 32 * 1024]);
}

/// Everything one vCPU is. Translated code addresses the first fields by their offsets.
#[repr(C)]
pub(crate) struct Cpu {
    /// While translated code runs, the host's stack pointer is the address behind this.
    pub(crate) room: SignalRoom,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub(crate) gpr: [u64; 16],
    /// While an instruction executes: the address of the next one.
    pub(crate) rip: u64,
    /// All flags; bit 1 is set. Write through [`Cpu::set_rflags`] unless only status flags change.
    pub(crate) rflags: u64,
    /// XMM, YMM, MXCSR.
    pub(crate) vector: VectorState,
    /// x87 and MMX.
    pub(crate) x87: X87,
    /// What translated code works with.
    pub(crate) translator: TranslatorState,
    /// Translations from linear addresses.
    pub(crate) tlb: Tlb,
    /// What follows from CS, CR0, CR4, EFER and RFLAGS.AC.
    pub(crate) mode: Mode,
    /// ES, CS, SS, DS, FS, GS, by [`SegReg`]. Write through [`Cpu::set_segment`].
    pub(crate) segments: [Segment; 6],
    pub(crate) ldtr: Segment,
    pub(crate) tr: Segment,
    pub(crate) gdtr: TableRegister,
    pub(crate) idtr: TableRegister,
    /// CR0, CR4, EFER: after a change call [`Cpu::update_mode`] (and flush the TLB where it is due).
    pub(crate) cr0: u64,
    pub(crate) cr2: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) efer: u64,
    pub(crate) xcr0: u64,
    pub(crate) debug: DebugRegisters,
    pub(crate) msrs: SystemMsrs,
    pub(crate) activity: Activity,
    /// Interrupt shadows, NMI state, and what was pending when state was set.
    pub(crate) events: PendingEvents,
    pub(crate) apic: Arc<Apic>,
    /// What CPUID answers.
    pub(crate) cpuid: Vec<CpuidLeaf>,
    /// What those answers promise.
    pub(crate) features: Features,
    /// Decoded code.
    pub(crate) blocks: Blocks,
    /// Translated code.
    pub(crate) translations: Translator,
    /// Who hears what guest code does, and where it is.
    pub(crate) tracer: Option<Box<Tracer>>,
    pub(crate) sampled: Option<Arc<Sampled>>,
    /// Instructions outside the profile that were told.
    pub(crate) undefined: Arc<Undefined>,
}

impl Cpu {
    pub(crate) const RAX: usize = 0;
    pub(crate) const RCX: usize = 1;
    pub(crate) const RDX: usize = 2;
    pub(crate) const RBX: usize = 3;
    pub(crate) const RSP: usize = 4;
    pub(crate) const RBP: usize = 5;
    pub(crate) const RSI: usize = 6;
    pub(crate) const RDI: usize = 7;

    /// The segment register as it stands.
    pub(crate) fn segment(&self, register: SegReg) -> &Segment {
        &self.segments[register as usize]
    }

    /// Loads a segment register, hidden part and all, without any check.
    pub(crate) fn set_segment(&mut self, register: SegReg, segment: Segment) {
        self.segments[register as usize] = segment;
        if matches!(register, SegReg::Cs | SegReg::Ss) {
            self.update_mode();
        }
    }

    /// Current privilege level.
    pub(crate) fn cpl(&self) -> u8 {
        self.mode.cpl
    }

    /// Replaces RFLAGS whole.
    pub(crate) fn set_rflags(&mut self, value: u64) {
        let changed = self.rflags ^ value;
        self.rflags = value | flags::FIXED;
        if changed & (flags::AC | flags::VM) != 0 {
            self.update_mode();
        }
    }

    /// Replaces the six status flags by those in `status`.
    #[inline]
    pub(crate) fn set_status(&mut self, status: u64) {
        self.rflags = self.rflags & !flags::STATUS | status & flags::STATUS;
    }

    /// Works out [`Cpu::mode`] again.
    pub(crate) fn update_mode(&mut self) {
        self.mode = Mode::of(self);
    }

    /// Whether the guest is in IA-32e mode (64-bit or compatibility).
    pub(crate) fn long_mode(&self) -> bool {
        self.efer & control::EFER_LMA != 0
    }

    /// CPL as the descriptor of SS says (Intel SDM vol. 3, 5.5).
    fn privilege(&self) -> u8 {
        if self.cr0 & control::CR0_PE == 0 {
            return 0;
        }
        if self.rflags & flags::VM != 0 {
            return 3;
        }
        ((self.segments[SegReg::Ss as usize].attributes & SegmentAttributes::DPL).bits() >> 5) as u8
    }
}
