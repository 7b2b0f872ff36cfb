//! Loads and stores by linear address.

use super::paging::Access;
use super::{PAGE_OFFSET, PAGE_SIZE};
use crate::cpu::TlbSet;
use crate::exception::Exception;
use crate::exec::Exec;

impl Exec<'_> {
    /// Translates for one access and remembers what can be remembered. The access lies in one page.
    fn translate(&mut self, set: TlbSet, linear: u64, access: Access) -> Result<u64, Exception> {
        let known = match access {
            Access::Read => self.cpu.tlb.find_read(set, linear),
            Access::Write => self.cpu.tlb.find_write(set, linear),
            Access::Fetch => self.cpu.tlb.find_code(set, linear),
        };
        match known {
            Some(gpa) => Ok(gpa),
            None => self.translate_slowly(set, linear, access),
        }
    }

    #[cold]
    fn translate_slowly(&mut self, set: TlbSet, linear: u64, access: Access) -> Result<u64, Exception> {
        let found = self.walk(set, linear, access)?;
        let page = found.gpa & !PAGE_OFFSET;
        if found.shift > 12 {
            self.cpu.tlb.note_large_page(linear, found.shift);
        }
        if access == Access::Fetch {
            self.cpu.tlb.fill_code(set, linear, page, found.global);
            return Ok(found.gpa);
        }
        if let Some(host) = self.memory.ram().host_address(page, PAGE_SIZE) {
            // With a log of dirty pages only a store makes later ones free, and never one to decoded code.
            let logged = !self.memory.logs_dirty() || access == Access::Write;
            let writable = found.writable && logged && !self.memory.ram().is_watched(page);
            if writable && access == Access::Write {
                self.memory.mark_dirty(page);
            }
            self.cpu.tlb.fill(set, linear, page, host, writable, found.global);
        }
        Ok(found.gpa)
    }

    /// Where code at `linear` is in physical memory.
    pub(crate) fn translate_code(&mut self, linear: u64) -> Result<u64, Exception> {
        let set = self.cpu.mode.set;
        self.translate(set, linear, Access::Fetch)
    }

    /// Loads 1, 2, 4 or 8 bytes.
    #[inline]
    pub(crate) fn linear_load(&mut self, set: TlbSet, linear: u64, size: usize) -> Result<u64, Exception> {
        if (linear & PAGE_OFFSET) + size as u64 <= PAGE_SIZE {
            let gpa = self.translate(set, linear, Access::Read)?;
            return Ok(self.physical_load(gpa, size));
        }
        let mut bytes = [0; 8];
        self.linear_read(set, linear, &mut bytes[..size])?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Stores the low 1, 2, 4 or 8 bytes of `value`.
    #[inline]
    pub(crate) fn linear_store(
        &mut self,
        set: TlbSet,
        linear: u64,
        size: usize,
        value: u64,
    ) -> Result<(), Exception> {
        if (linear & PAGE_OFFSET) + size as u64 <= PAGE_SIZE {
            let gpa = self.translate(set, linear, Access::Write)?;
            self.physical_store(gpa, size, value);
            return Ok(());
        }
        self.linear_write(set, linear, &value.to_le_bytes()[..size])
    }

    /// Reads bytes, over as many pages as they lie in. Devices see none of it where a page is missing.
    pub(crate) fn linear_read(
        &mut self,
        set: TlbSet,
        linear: u64,
        bytes: &mut [u8],
    ) -> Result<(), Exception> {
        self.linear_probe(set, linear, bytes.len() as u64, Access::Read)?;
        let mut done = 0;
        while done < bytes.len() {
            let at = self.behind(linear, done as u64);
            let len = in_page(at, bytes.len() - done);
            let gpa = self.translate(set, at, Access::Read)?;
            self.physical_read(gpa, &mut bytes[done..done + len]);
            done += len;
        }
        Ok(())
    }

    /// Writes bytes, over as many pages as they lie in: all or, where a page is missing, none.
    pub(crate) fn linear_write(&mut self, set: TlbSet, linear: u64, bytes: &[u8]) -> Result<(), Exception> {
        self.linear_probe(set, linear, bytes.len() as u64, Access::Write)?;
        let mut done = 0;
        while done < bytes.len() {
            let at = self.behind(linear, done as u64);
            let len = in_page(at, bytes.len() - done);
            let gpa = self.translate(set, at, Access::Write)?;
            self.physical_write(gpa, &bytes[done..done + len]);
            done += len;
        }
        Ok(())
    }

    /// Raises what an access of `len` bytes would raise, and does nothing else.
    pub(crate) fn linear_probe(
        &mut self,
        set: TlbSet,
        linear: u64,
        len: u64,
        access: Access,
    ) -> Result<(), Exception> {
        let mut done = 0;
        while done < len {
            let at = self.behind(linear, done);
            self.translate(set, at, access)?;
            done += PAGE_SIZE - (at & PAGE_OFFSET);
        }
        Ok(())
    }

    /// Reads, changes and writes 1, 2, 4 or 8 bytes; with `locked` as one step for everybody else. `change` may
    /// be called more than once. Gives back what was there and what was stored.
    pub(crate) fn linear_update(
        &mut self,
        set: TlbSet,
        linear: u64,
        size: usize,
        locked: bool,
        mut change: impl FnMut(u64) -> u64,
    ) -> Result<(u64, u64), Exception> {
        if locked && is_split(linear, size) {
            return self.alone(|exec| exec.linear_update(set, linear, size, false, change));
        }
        if locked {
            let gpa = self.translate(set, linear, Access::Write)?;
            if let Some(mut old) = self.memory.ram().load(gpa, size) {
                loop {
                    let new = change(old);
                    match self.memory.ram().compare_exchange(gpa, size, old, new) {
                        Some(Err(now)) => old = now,
                        _ => {
                            self.note_store(gpa, size as u64);
                            return Ok((old, new));
                        }
                    }
                }
            }
        }
        if (linear & PAGE_OFFSET) + size as u64 <= PAGE_SIZE {
            let gpa = self.translate(set, linear, Access::Write)?;
            let old = self.physical_load(gpa, size);
            let new = change(old);
            self.physical_store(gpa, size, new);
            return Ok((old, new));
        }
        self.linear_probe(set, linear, size as u64, Access::Write)?;
        let old = self.linear_load(set, linear, size)?;
        let new = change(old);
        self.linear_store(set, linear, size, new)?;
        Ok((old, new))
    }

    /// Compares and exchanges 16 aligned bytes as one step; `Ok(old)` tells by its equality whether it stored.
    pub(crate) fn linear_compare_exchange_16(
        &mut self,
        set: TlbSet,
        linear: u64,
        current: u128,
        new: u128,
    ) -> Result<u128, Exception> {
        let gpa = self.translate(set, linear, Access::Write)?;
        match self.memory.ram().compare_exchange_16(gpa, current, new) {
            Some(Ok(old)) => {
                self.note_store(gpa, 16);
                Ok(old)
            }
            Some(Err(old)) => Ok(old),
            None => {
                let mut bytes = [0; 16];
                self.physical_read(gpa, &mut bytes);
                let old = u128::from_le_bytes(bytes);
                self.physical_write(gpa, &if old == current { new } else { old }.to_le_bytes());
                Ok(old)
            }
        }
    }

    /// Guest-physical address for a read or write of RAM that a string instruction does many elements of at once.
    pub(crate) fn translate_data(
        &mut self,
        set: TlbSet,
        linear: u64,
        access: Access,
    ) -> Result<u64, Exception> {
        self.translate(set, linear, access)
    }

    /// Tells that bytes of RAM inside one page were stored by other means than the functions here.
    pub(crate) fn stored(&mut self, gpa: u64, len: u64) {
        self.note_store(gpa, len);
    }

    /// Where the byte `offset` behind `linear` is: outside 64-bit code linear addresses have 32 bits. What begins above
    /// is a table of the processor's own in IA-32e mode, whatever the code is.
    pub(crate) fn behind(&self, linear: u64, offset: u64) -> u64 {
        let at = linear.wrapping_add(offset);
        if self.cpu.mode.bits == 64 || linear >> 32 != 0 {
            at
        } else {
            at & 0xffff_ffff
        }
    }
}

/// Whether an access is over the end of eight aligned bytes, which the host's processor exchanges as one.
fn is_split(linear: u64, size: usize) -> bool {
    linear % 8 + size as u64 > 8
}

/// How many of `left` bytes from `at` on lie in its page.
fn in_page(at: u64, left: usize) -> usize {
    left.min((PAGE_SIZE - (at & PAGE_OFFSET)) as usize)
}
