//! Many elements at once: as far as one page of RAM reaches, upwards.

use crate::cpu::{Cpu, SegReg, flags};
use crate::exception::Exception;
use crate::exec::{Exec, mask};
use crate::memory::{Access, PAGE_OFFSET, PAGE_SIZE};

/// Fewer elements are not worth it.
const WORTH_IT: u64 = 4;

/// How many elements of `size` bytes lie whole between `at` and the end of its page.
fn in_page(at: u64, size: usize) -> u64 {
    (PAGE_SIZE - (at & PAGE_OFFSET)) / size as u64
}

impl Exec<'_> {
    /// Whether elements can be done together at all.
    fn stretches(&self, count: u64) -> bool {
        count >= WORTH_IT && self.cpu.rflags & flags::DF == 0 && !self.cpu.mode.alignment_checks
    }

    /// How many of `count` elements from `offset` on can be reached without a wrap of the offset or the end of
    /// a page, and the linear address of the first; `None` where too few are.
    fn reach<const S: usize, const A: usize>(
        &self,
        segment: SegReg,
        offset: u64,
        count: u64,
        access: Access,
    ) -> Option<(u64, u64)> {
        let first = self.linear(segment, offset, S as u64, access).ok()?;
        let before_wrap = (mask(A) - offset) / S as u64;
        let count = count.min(in_page(first, S)).min(before_wrap);
        if count < WORTH_IT {
            return None;
        }
        // The end of the segment may come earlier.
        self.linear(segment, offset, count * S as u64, access).ok()?;
        Some((count, first))
    }

    /// `MOVS`: gives how many of `count` elements it moved. A page fault is that of the first element.
    pub(super) fn move_stretch<const S: usize, const A: usize>(
        &mut self,
        segment: SegReg,
        count: u64,
    ) -> Result<u64, Exception> {
        if !self.stretches(count) {
            return Ok(0);
        }
        let (source, target) = (self.number::<A>(Cpu::RSI), self.number::<A>(Cpu::RDI));
        let Some((count, from)) = self.reach::<S, A>(segment, source, count, Access::Read) else {
            return Ok(0);
        };
        let Some((count, to)) = self.reach::<S, A>(SegReg::Es, target, count, Access::Write) else {
            return Ok(0);
        };
        let set = self.cpu.mode.set;
        let from = self.translate_data(set, from, Access::Read)?;
        let to = self.translate_data(set, to, Access::Write)?;
        let len = count * S as u64;
        // An element that overlaps itself is read before it is written, not byte by byte.
        let overlaps_itself = to > from && to - from < S as u64;
        if overlaps_itself || !self.memory.ram().copy_forward(from, to, len) {
            return Ok(0);
        }
        self.stored(to, len);
        self.set_number::<A>(Cpu::RSI, source + len);
        self.set_number::<A>(Cpu::RDI, target + len);
        Ok(count)
    }

    /// `STOS`: gives how many of `count` elements it stored. A page fault is that of the first element.
    pub(super) fn fill_stretch<const S: usize, const A: usize>(
        &mut self,
        count: u64,
    ) -> Result<u64, Exception> {
        if !self.stretches(count) {
            return Ok(0);
        }
        let target = self.number::<A>(Cpu::RDI);
        let Some((count, to)) = self.reach::<S, A>(SegReg::Es, target, count, Access::Write) else {
            return Ok(0);
        };
        let to = self.translate_data(self.cpu.mode.set, to, Access::Write)?;
        let len = count * S as u64;
        let element = self.accumulator::<S>().to_le_bytes();
        if !self.memory.ram().fill(to, len, &element[..S]) {
            return Ok(0);
        }
        self.stored(to, len);
        self.set_number::<A>(Cpu::RDI, target + len);
        Ok(count)
    }
}
