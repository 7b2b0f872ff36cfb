//! Memory for one vCPU's translated code: filled from the bottom, emptied at once.

use host_os::CodeMemory;

use super::runtime::Runtime;

/// The most code that is kept for a vCPU, in bytes.
pub(super) const LIMIT: usize = 128 << 20;

/// Code memory with the shared pieces at its start.
pub(super) struct CodeArena {
    memory: CodeMemory,
    runtime: Runtime,
    /// Bytes in use; the shared pieces are the first `kept` of them.
    used: usize,
    kept: usize,
    /// Where the second part ends; it begins in the middle. `None` where there is only one part.
    second: Option<usize>,
}

/// Which part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    First,
    /// Code that is not to lie among the other.
    Second,
}

/// How much is filled at a time: a part of what a processor's cache holds.
pub(super) const PIECE: usize = 128 * 1024;
/// Blocks begin at multiples of this.
const ALIGN: usize = 16;

impl CodeArena {
    /// Room for `limit` bytes of code.
    ///
    /// # Errors
    /// The host refuses such memory.
    pub(super) fn new(handler: u64, limit: usize) -> Result<Self, host_os::Error> {
        let memory = CodeMemory::new(limit)?;
        let base = memory.executable().as_ptr() as u64;
        let (runtime, bytes) = Runtime::assemble(base, handler);
        let mut arena = Self {
            memory,
            runtime,
            used: 0,
            kept: 0,
            second: None,
        };
        arena.write(0, &bytes);
        arena.kept = bytes.len().next_multiple_of(ALIGN);
        arena.used = arena.kept;
        Ok(arena)
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Bytes in use, without those of the second part.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// How many of them are the shared pieces'.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// The address of the first block.
    pub(super) fn first(&self) -> u64 {
        self.base() + self.kept as u64
    }

    /// A copy of what is behind the shared pieces, up to offset `end`.
    pub(super) fn code_up_to(&self, end: usize) -> Vec<u8> {
        let len = end.min(self.used) - self.kept;
        let mut code = vec![0; len];
        // SAFETY: `used` and `kept` are inside the mapping, which this thread alone writes to, and not meanwhile.
        unsafe {
            let source = self.memory.writable().as_ptr().add(self.kept);
            std::ptr::copy_nonoverlapping(source, code.as_mut_ptr(), len);
        }
        code
    }

    /// Where the next block of a part will be executed.
    pub(super) fn next(&self, part: Part) -> u64 {
        self.base() + self.end(part) as u64
    }

    fn end(&self, part: Part) -> usize {
        match part {
            Part::First => self.used,
            Part::Second => self.second.unwrap_or(self.middle()),
        }
    }

    fn middle(&self) -> usize {
        (self.memory.len() / 2).next_multiple_of(ALIGN)
    }

    /// Puts code there; `None` where it does not fit.
    pub(super) fn place(&mut self, code: &[u8], part: Part) -> Option<u64> {
        let start = self.end(part);
        if part == Part::Second && self.used > self.middle() {
            return None;
        }
        let limit = match part {
            Part::First if self.second.is_some() => self.middle(),
            _ => self.memory.len(),
        };
        if code.len() > limit.checked_sub(start)? {
            return None;
        }
        let entry = self.next(part);
        self.write(start, code);
        let end = (start + code.len()).next_multiple_of(ALIGN).min(limit);
        match part {
            Part::First => self.used = end,
            Part::Second => self.second = Some(end),
        }
        Some(entry)
    }

    /// The address of its first byte.
    pub(super) fn base(&self) -> u64 {
        self.memory.executable().as_ptr() as u64
    }

    /// Makes the jump whose displacement is at offset `site` go to the address `target` in this memory.
    pub(super) fn patch(&mut self, site: u32, target: u64) {
        let next = self.base() + u64::from(site) + 4;
        let displacement = (target.wrapping_sub(next) as u32).to_le_bytes();
        self.write(site as usize, &displacement);
    }

    /// Makes the jump whose displacement is at offset `site` go to what is behind it.
    pub(super) fn unpatch(&mut self, site: u32) {
        self.write(site as usize, &[0; 4]);
    }

    /// Forgets all blocks.
    pub(super) fn clear(&mut self) {
        self.used = self.kept;
        self.second = None;
    }

    /// Puts `len` bytes of code into the first part, which has none yet, as `next` fills piece by piece, each but the last
    /// [`PIECE`] long. `None` where they do not fit, or `next` has no more; then what is there is not to be used.
    pub(super) fn fill(&mut self, len: usize, mut next: impl FnMut(&mut [u8]) -> Option<()>) -> Option<()> {
        if len > self.memory.len() - self.used {
            return None;
        }
        let mut buffer = vec![0; PIECE.min(len)];
        let end = self.used + len;
        while self.used < end {
            let piece = &mut buffer[..PIECE.min(end - self.used)];
            next(piece)?;
            // SAFETY: nothing is executed and nobody reads there while this arena is borrowed.
            unsafe { self.memory.write_at(self.used, piece) }.ok()?;
            self.used += piece.len();
        }
        self.used = end.next_multiple_of(ALIGN).min(self.memory.len());
        Some(())
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.memory.len());
        // SAFETY: inside the mapping, as was just checked; it belongs to this arena, and the only other reader is
        // this thread when it executes code, which it does not while it is here.
        unsafe {
            let target = self.memory.writable().as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }
}
