//! Memory for one vCPU's translated code: filled from the bottom, emptied at once.

use host_os::CodeMemory;

use super::runtime::Runtime;

/// The most code that is kept for a vCPU, in bytes.
pub(super) const LIMIT: usize = 32 << 20;

/// Code memory with the shared pieces at its start.
pub(super) struct CodeArena {
    memory: CodeMemory,
    runtime: Runtime,
    /// Bytes in use; the shared pieces are the first `kept` of them.
    used: usize,
    kept: usize,
}

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
        };
        arena.write(0, &bytes);
        arena.kept = bytes.len().next_multiple_of(ALIGN);
        arena.used = arena.kept;
        Ok(arena)
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Bytes in use.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Where the next block will be executed.
    pub(super) fn next(&self) -> u64 {
        self.memory.executable().as_ptr() as u64 + self.used as u64
    }

    /// Puts code there; `None` where it does not fit.
    pub(super) fn place(&mut self, code: &[u8]) -> Option<u64> {
        if code.len() > self.memory.len() - self.used {
            return None;
        }
        let entry = self.next();
        self.write(self.used, code);
        self.used = (self.used + code.len())
            .next_multiple_of(ALIGN)
            .min(self.memory.len());
        Some(entry)
    }

    /// Makes the jump whose displacement is at `site` go to `target`; both are addresses in this memory.
    pub(super) fn patch(&mut self, site: u64, target: u64) {
        let displacement = (target.wrapping_sub(site + 4) as u32).to_le_bytes();
        let offset = (site - self.memory.executable().as_ptr() as u64) as usize;
        self.write(offset, &displacement);
    }

    /// Forgets all blocks.
    pub(super) fn clear(&mut self) {
        self.used = self.kept;
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
