//! What the exception handler stands on: descriptors, the task's stacks, the handler, and the state a program starts in.

use anyhow::{Context, Result};
use hypervisor::x86_64::{CpuState, Segment, SegmentAttributes, TableRegister};

use super::paging::Paging;
use super::place::{
    CODE_LINEAR, GDT, HANDLER, HANDLER_STACK_TOP, IDT, KERNEL_CS, KERNEL_SS, ODD, ODD_COUNT, PML4, RUNS, TSS,
    TSS_SELECTOR, USER_CS, USER_CS_16, USER_CS_32, USER_SS,
};
use super::ram::Ram;
use super::{handler, handler32, program};
use crate::random::Random;

/// A handler's code, and where it begins for each vector.
type Handler = (Vec<u8>, Vec<u64>);

/// The handlers, which are the same for all programs.
pub(super) struct Kernel {
    long: Handler,
    paged: Handler,
    unpaged: Handler,
}

/// What a part starts with: RIP, CS, RFLAGS, RSP, SS.
pub(super) type PartStart = [u64; 5];

impl Kernel {
    pub(super) fn new() -> Result<Self> {
        let assembled = || -> Result<_, iced_x86::IcedError> {
            Ok(Self {
                long: handler::assemble()?,
                paged: handler32::assemble(Paging::Pae.kernel())?,
                unpaged: handler32::assemble(Paging::None.kernel())?,
            })
        };
        assembled().context("a handler cannot be assembled")
    }

    /// Writes everything, with `odd` segments beside the kernel's own.
    pub(super) fn write(&self, ram: &mut Ram, paging: Paging, odd: &[u64]) {
        for selector in [KERNEL_CS, KERNEL_SS, USER_SS, USER_CS, USER_CS_32, USER_CS_16] {
            let segment = segment(paging, selector);
            ram.write_words(GDT + u64::from(selector & !7), &[segment.descriptor()]);
        }
        let task = Segment {
            attributes: SegmentAttributes::PRESENT | SegmentAttributes::from_bits_retain(11),
            ..Segment::busy_tss(TSS_SELECTOR, paging.kernel() + TSS, 0x67)
        };
        ram.write_words(GDT + u64::from(TSS_SELECTOR), &[task.descriptor()]);
        ram.write_words(GDT + u64::from(ODD & !7), odd);
        let stack = paging.kernel() + HANDLER_STACK_TOP;
        if paging.is_long() {
            // The first stack of the interrupt stack table (Intel SDM vol. 3, 7.7).
            ram.write(TSS + 36, &stack.to_le_bytes());
        } else {
            // ESP0 and SS0 (Intel SDM vol. 3, 7.2.1).
            ram.write(TSS + 4, &(stack as u32).to_le_bytes());
            ram.write(TSS + 8, &u32::from(KERNEL_SS).to_le_bytes());
        }
        let (code, entries) = match paging {
            Paging::FourLevel => &self.long,
            Paging::Pae | Paging::TwoLevel => &self.paged,
            Paging::None => &self.unpaged,
        };
        ram.write(HANDLER, code);
        for (vector, &address) in (0_u64..).zip(entries) {
            let gate = gate(paging, address);
            if paging.is_long() {
                ram.write_words(IDT + vector * 16, &[gate, address >> 32]);
            } else {
                ram.write_words(IDT + vector * 8, &[gate]);
            }
        }
    }
}

/// An interrupt gate for every ring; in long mode on the first stack of the table (Intel SDM vol. 3, 6.11 and 6.14.1).
fn gate(paging: Paging, address: u64) -> u64 {
    let kind: u64 = if paging.is_long() { 0xee01 } else { 0xee00 };
    address & 0xffff | u64::from(KERNEL_CS) << 16 | kind << 32 | (address >> 16 & 0xffff) << 48
}

/// The segment that a selector of the kernel's stands for.
pub(super) fn segment(paging: Paging, selector: u16) -> Segment {
    let flat = match (selector, paging.is_long()) {
        (KERNEL_CS | USER_CS, true) => Segment::flat_code64(selector),
        (KERNEL_CS | USER_CS, false) | (USER_CS_32, _) => Segment::flat_code32(selector),
        (USER_CS_16, _) => {
            let code = Segment::flat_code32(selector);
            Segment {
                base: base_of_16(paging),
                attributes: code.attributes - SegmentAttributes::BIG,
                ..code
            }
        }
        _ => Segment::flat_data(selector),
    };
    let ring = match selector & 3 {
        0 => SegmentAttributes::empty(),
        _ => SegmentAttributes::DPL,
    };
    Segment {
        attributes: flat.attributes | ring,
        ..flat
    }
}

/// Where 16-bit code's segment begins.
pub(super) fn base_of_16(paging: Paging) -> u64 {
    match paging {
        Paging::None => super::place::CODE,
        _ => CODE_LINEAR,
    }
}

/// Segments with bases, limits and rights as they come.
pub(super) fn odd_segments(paging: Paging, random: &mut Random) -> Vec<u64> {
    const EXPAND_DOWN: u32 = 1 << 2;
    const WRITABLE: u32 = 1 << 1;
    const PRESENT_USER_DATA: u32 = 0xf0;
    const BIG_GRANULAR: u32 = 0xc000;
    let segment = |base: u64, limit: u32, attributes: u32| {
        let segment = Segment {
            selector: 0,
            base,
            limit,
            attributes: SegmentAttributes::from_bits_retain(attributes),
        };
        segment.descriptor()
    };
    let (run, pages) = RUNS[0];
    let bytes = pages as u32 * 0x1000;
    let data = PRESENT_USER_DATA | WRITABLE;
    let mut odd = vec![
        segment(0xffff_f000, u32::MAX, data | BIG_GRANULAR),
        segment(0x8000_0000, u32::MAX, data | BIG_GRANULAR),
        segment(run, bytes - 2, data | 0x4000),
        segment(0, run as u32 + 0x1fff, data | EXPAND_DOWN | BIG_GRANULAR),
        segment(run, 0xfff, data | EXPAND_DOWN),
        segment(0, u32::MAX, PRESENT_USER_DATA | BIG_GRANULAR),
        segment(0, u32::MAX, data & !0x80 | BIG_GRANULAR),
        segment(
            program::address(paging, random),
            random.next() as u32,
            data | BIG_GRANULAR,
        ),
        segment(
            program::address(paging, random),
            random.next() as u32 & 0xf_ffff,
            data | 0x4000,
        ),
        random.next(),
    ];
    odd.truncate(usize::from(ODD_COUNT));
    odd
}

/// The state in which the part that starts with `first` begins.
pub(super) fn state(paging: Paging, first: &PartStart, random: &mut Random) -> CpuState {
    /// WP, AM; PGE, FSGSBASE, UMIP, SMAP, PSE; SMEP; SCE, NXE.
    const CR0: [u64; 2] = [1 << 16, 1 << 18];
    const CR4: [u64; 4] = [1 << 7, 1 << 16, 1 << 11, 1 << 21];
    const PSE: u64 = 1 << 4;
    const PAE: u64 = 1 << 5;
    const PG: u64 = 1 << 31;
    // Nearly all code is on pages of users: with SMEP the kernel's would not run.
    const SMEP: u64 = 1 << 20;
    const OSXSAVE: u64 = 1 << 18;
    const EFER: u64 = 1 << 0 | 1 << 11;
    let mut some = |bits: &[u64]| bits.iter().filter(|_| !random.once_in(3)).sum::<u64>();
    let (cr0, cr4) = (some(&CR0), some(&CR4));
    let smep = if random.once_in(8) { SMEP } else { 0 };
    let mut state = CpuState::reset(0);
    let [rip, cs, flags, rsp, ss] = *first;
    match paging {
        Paging::FourLevel => state.enter_long_mode(rip, PML4, KERNEL_CS, KERNEL_SS),
        _ => {
            state.enter_protected_mode(rip, KERNEL_CS, KERNEL_SS);
            let system = &mut state.system;
            system.cr3 = PML4;
            system.cr0 |= if paging == Paging::None { 0 } else { PG };
            // The kernel's page is large.
            system.cr4 |= if paging == Paging::Pae { PAE } else { PSE };
        }
    }
    let system = &mut state.system;
    system.cs = segment(paging, cs as u16);
    system.ss = segment(paging, ss as u16);
    for data in [&mut system.ds, &mut system.es] {
        *data = segment(paging, USER_SS);
    }
    let kernel = paging.kernel();
    system.tr = Segment::busy_tss(TSS_SELECTOR, kernel + TSS, 0x67);
    system.gdtr = TableRegister {
        base: kernel + GDT,
        limit: (ODD & !7) + ODD_COUNT * 8 - 1,
    };
    system.idtr = TableRegister {
        base: kernel + IDT,
        limit: 0xfff,
    };
    system.cr0 |= cr0;
    system.cr4 |= cr4 | smep | OSXSAVE;
    system.efer |= EFER;
    system.fs.base = paging.cut(program::address(paging, random) as i32 as u64);
    state.xcr0 = 7;
    let general = &mut state.general;
    for register in &mut general.gpr {
        *register = program::address(paging, random);
    }
    general.gpr[4] = rsp;
    general.rflags = flags;
    state
}
