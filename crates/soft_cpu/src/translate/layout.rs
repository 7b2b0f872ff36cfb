//! Where translated code finds things, as offsets from where RSP points: into the [`Cpu`](crate::cpu::Cpu), behind
//! its room for signal handlers of the host.

use std::mem::{offset_of, size_of};

use hypervisor::x86_64::Segment;

use crate::cpu::{Cpu, SegReg, TlbSet};
use crate::memory::{Generations, TLB_ENTRIES, Tlb, TlbEntry};
use crate::system::SystemMsrs;
use crate::translate::state::{JumpEntry, TranslatorState};
use crate::vector::VectorState;

/// Where RSP points.
pub(super) const ROOM: i32 = offset_of!(Cpu, gpr) as i32;

const fn behind(offset: usize) -> i32 {
    offset as i32 - ROOM
}

pub(super) const RIP: i32 = behind(offset_of!(Cpu, rip));
pub(super) const RFLAGS: i32 = behind(offset_of!(Cpu, rflags));
pub(super) const MXCSR: i32 = behind(offset_of!(Cpu, vector) + offset_of!(VectorState, mxcsr));

const STATE: usize = offset_of!(Cpu, translator);
pub(super) const ATTENTION: i32 = behind(STATE + offset_of!(TranslatorState, attention));
pub(super) const NATIVE_RSP: i32 = behind(STATE + offset_of!(TranslatorState, native_rsp));
pub(super) const TARGET: i32 = behind(STATE + offset_of!(TranslatorState, target));
pub(super) const STATUS: i32 = behind(STATE + offset_of!(TranslatorState, status));
pub(super) const PLACE: i32 = behind(STATE + offset_of!(TranslatorState, place));
pub(super) const OP: i32 = behind(STATE + offset_of!(TranslatorState, op));
pub(super) const LINK: i32 = behind(STATE + offset_of!(TranslatorState, link));
pub(super) const PAGE: i32 = behind(STATE + offset_of!(TranslatorState, page));
pub(super) const VECTORS_HELD: i32 = behind(STATE + offset_of!(TranslatorState, vectors_held));
pub(super) const WAITING: i32 = behind(STATE + offset_of!(TranslatorState, waiting));
pub(super) const HOST_MXCSR: i32 = behind(STATE + offset_of!(TranslatorState, host_mxcsr));

pub(super) const KERNEL_GS_BASE: i32 = behind(offset_of!(Cpu, msrs) + offset_of!(SystemMsrs, kernel_gs_base));

pub(super) fn gpr(number: usize) -> i32 {
    behind(offset_of!(Cpu, gpr) + number * 8)
}

pub(super) fn vector(number: usize) -> i32 {
    behind(offset_of!(Cpu, vector) + offset_of!(VectorState, registers) + number * 32)
}

pub(super) fn segment_base(segment: SegReg) -> i32 {
    behind(offset_of!(Cpu, segments) + segment as usize * size_of::<Segment>() + offset_of!(Segment, base))
}

/// Fields of the TLB's first entry of a set; an entry is 32 bytes.
pub(super) struct TlbOffsets {
    pub(super) read: i32,
    pub(super) write: i32,
    pub(super) host: i32,
}

const _: () = assert!(size_of::<TlbEntry>() == 32 && TLB_ENTRIES.is_power_of_two());
const _: () = assert!(size_of::<JumpEntry>() == 16);

pub(super) fn tlb(set: TlbSet) -> TlbOffsets {
    let first =
        offset_of!(Cpu, tlb) + offset_of!(Tlb, data) + set as usize * TLB_ENTRIES * size_of::<TlbEntry>();
    TlbOffsets {
        read: behind(first + offset_of!(TlbEntry, read_tag)),
        write: behind(first + offset_of!(TlbEntry, write_tag)),
        host: behind(first + offset_of!(TlbEntry, host)),
    }
}

/// When the code page of a number was last looked up.
pub(super) fn verified(page: u32) -> i32 {
    behind(STATE + offset_of!(TranslatorState, verified) + page as usize * size_of::<u64>())
}

/// What that is compared with for code of this TLB set.
pub(super) fn generation(set: TlbSet) -> i32 {
    let field = match set {
        TlbSet::User => offset_of!(Generations, user),
        TlbSet::Supervisor | TlbSet::SupervisorOpen => offset_of!(Generations, all),
    };
    behind(offset_of!(Cpu, tlb) + offset_of!(Tlb, generations) + field)
}

/// The first entry of the jump cache of code that uses this TLB set.
pub(super) fn jumps(set: TlbSet) -> i32 {
    behind(match set {
        TlbSet::User => STATE + offset_of!(TranslatorState, user_jumps),
        TlbSet::Supervisor => STATE + offset_of!(TranslatorState, supervisor_jumps),
        TlbSet::SupervisorOpen => STATE + offset_of!(TranslatorState, open_jumps),
    })
}

/// All of these: code with some of them in it fits no program with others.
pub(super) fn all() -> [i32; 29] {
    let tlbs = [TlbSet::User, TlbSet::Supervisor, TlbSet::SupervisorOpen].map(tlb);
    let [user, supervisor, open] = tlbs.map(|TlbOffsets { read, write, host }| [read, write, host]);
    let scattered = [
        ROOM,
        RIP,
        RFLAGS,
        MXCSR,
        ATTENTION,
        NATIVE_RSP,
        TARGET,
        STATUS,
        PLACE,
        OP,
        LINK,
        PAGE,
        VECTORS_HELD,
        WAITING,
        HOST_MXCSR,
        KERNEL_GS_BASE,
        vector(0),
        segment_base(SegReg::Fs),
        verified(0),
        generation(TlbSet::Supervisor),
    ];
    let mut all = [0; 29];
    let offsets = scattered.into_iter().chain(user).chain(supervisor).chain(open);
    for (place, offset) in all.iter_mut().zip(offsets) {
        *place = offset;
    }
    all
}
