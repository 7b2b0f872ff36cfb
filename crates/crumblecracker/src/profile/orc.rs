//! Callers of code in a Linux kernel that was built without frame pointers: its ORC tables say for every address where
//! the stack frame is (`Documentation/arch/x86/orc-unwinder.rst`, `arch/x86/include/asm/orc_types.h`, as of 6.4).

use std::io::Result;

use soft_cpu::GuestStack;

use super::elf::{Sections, u16_at, u32_at};

/// Length of one entry.
const ENTRY: usize = 6;

/// What frames are found by (`ORC_REG_*`).
mod base {
    pub(super) const UNDEFINED: u16 = 0;
    pub(super) const PREVIOUS_SP: u16 = 1;
    pub(super) const BP: u16 = 4;
    pub(super) const SP: u16 = 5;
    pub(super) const BP_INDIRECT: u16 = 8;
    pub(super) const SP_INDIRECT: u16 = 9;
}

/// What is in the frame (`ORC_TYPE_*`).
mod kind {
    pub(super) const CALL: u16 = 2;
    pub(super) const REGISTERS: u16 = 3;
    pub(super) const INTERRUPT_FRAME: u16 = 4;
}

/// Offsets in `struct pt_regs`, the last five of which an interrupt pushes.
mod registers {
    pub(super) const BP: u64 = 0x20;
    pub(super) const INTERRUPT_FRAME: u64 = 0x80;
    pub(super) const CS: u64 = 8;
    pub(super) const SP: u64 = 24;
}

/// The tables of one kernel.
#[derive(Debug, Default)]
pub(super) struct Orc {
    /// Address of the first place.
    base: u64,
    /// Addresses of code in their order, each relative to its own place.
    places: Vec<u8>,
    entries: Vec<u8>,
}

/// Where a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) ip: u64,
    pub(super) sp: u64,
    pub(super) bp: u64,
    /// The instruction at `ip` is the one that was interrupted, not one behind a call.
    pub(super) exact: bool,
}

struct Entry {
    sp_offset: i64,
    bp_offset: i64,
    sp_base: u16,
    bp_base: u16,
    kind: u16,
    exact: bool,
}

impl Orc {
    pub(super) fn read(sections: &Sections<'_>) -> Result<Self> {
        let places = sections.contents(".orc_unwind_ip")?;
        let entries = sections.contents(".orc_unwind")?;
        Ok(match (places, entries) {
            (Some((base, places)), Some((_, entries))) if places.len() / 4 == entries.len() / ENTRY => Self {
                base,
                places,
                entries,
            },
            _ => Self::default(),
        })
    }

    /// The frame of who called the function of `frame`; `None` at the end, or where nothing is known.
    pub(super) fn caller(&self, frame: &Frame, stack: &dyn GuestStack) -> Option<Frame> {
        let entry = self.entry(if frame.exact {
            frame.ip
        } else {
            frame.ip.wrapping_sub(1)
        })?;
        let offset = |from: u64| from.wrapping_add_signed(entry.sp_offset);
        let sp = match entry.sp_base {
            base::SP => offset(frame.sp),
            base::BP => offset(frame.bp),
            base::SP_INDIRECT => offset(stack.quad(frame.sp)?),
            base::BP_INDIRECT => stack.quad(offset(frame.bp))?,
            _ => return None,
        };
        let saved_bp = |from: u64| stack.quad(from.wrapping_add_signed(entry.bp_offset));
        let bp = match entry.bp_base {
            base::UNDEFINED if entry.kind == kind::REGISTERS => stack.quad(sp.wrapping_add(registers::BP))?,
            base::UNDEFINED => frame.bp,
            base::PREVIOUS_SP => saved_bp(sp)?,
            base::BP => saved_bp(frame.bp)?,
            _ => return None,
        };
        let caller = match entry.kind {
            kind::CALL => Frame {
                ip: stack.quad(sp.wrapping_sub(8))?,
                sp,
                bp,
                exact: entry.exact,
            },
            kind::REGISTERS => interrupted(sp.wrapping_add(registers::INTERRUPT_FRAME), bp, stack)?,
            kind::INTERRUPT_FRAME => interrupted(sp, bp, stack)?,
            _ => return None,
        };
        // Stacks grow downwards, and no frame is its own caller.
        (caller != *frame).then_some(caller)
    }

    /// What is known of the code at `ip`.
    fn entry(&self, ip: u64) -> Option<Entry> {
        let count = self.places.len() / 4;
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = (low + high) / 2;
            if self.place(middle)? <= ip {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let at = low.checked_sub(1)? * ENTRY;
        let signed = |at| u16_at(&self.entries, at).map(|half| i64::from(half as i16));
        let bits = u16_at(&self.entries, at + 4)?;
        Some(Entry {
            sp_offset: signed(at)?,
            bp_offset: signed(at + 2)?,
            sp_base: bits & 0xf,
            bp_base: bits >> 4 & 0xf,
            kind: bits >> 8 & 7,
            exact: bits >> 11 & 1 != 0,
        })
    }

    fn place(&self, index: usize) -> Option<u64> {
        let offset = u32_at(&self.places, index * 4)? as i32;
        Some(
            self.base
                .wrapping_add(index as u64 * 4)
                .wrapping_add_signed(offset.into()),
        )
    }
}

/// What an interrupt found, whose frame is at `at`; `None` where that was a program.
fn interrupted(at: u64, bp: u64, stack: &dyn GuestStack) -> Option<Frame> {
    let level = stack.quad(at.wrapping_add(registers::CS))? & 3;
    (level == 0).then_some(())?;
    Some(Frame {
        ip: stack.quad(at)?,
        sp: stack.quad(at.wrapping_add(registers::SP))?,
        bp,
        exact: true,
    })
}
