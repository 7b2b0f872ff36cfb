//! Guest-physical accesses: RAM, the local APIC's page, devices.

use super::{PAGE_OFFSET, PAGE_SIZE};
use crate::exec::Exec;
use crate::observe::DeviceAccess;

impl Exec<'_> {
    /// Loads 1 to 8 bytes that lie in one page.
    pub(super) fn physical_load(&mut self, gpa: u64, size: usize) -> u64 {
        if size.is_power_of_two()
            && let Some(value) = self.memory.ram().load(gpa, size)
        {
            return value;
        }
        let mut bytes = [0; 8];
        self.physical_read(gpa, &mut bytes[..size.min(8)]);
        u64::from_le_bytes(bytes)
    }

    /// Stores 1 to 8 bytes that lie in one page.
    pub(super) fn physical_store(&mut self, gpa: u64, size: usize, value: u64) {
        let size = size.min(8);
        let done = size.is_power_of_two() && self.memory.ram().store(gpa, size, value);
        if !done {
            self.physical_write(gpa, &value.to_le_bytes()[..size]);
            return;
        }
        self.note_store(gpa, size as u64);
    }

    /// Reads bytes that lie in one page.
    pub(super) fn physical_read(&mut self, gpa: u64, bytes: &mut [u8]) {
        if self.memory.ram().read(gpa, bytes) {
            return;
        }
        let mut at = gpa;
        for piece in pieces(gpa, bytes.len()) {
            let start = (at - gpa) as usize;
            self.device_read(at, &mut bytes[start..start + piece]);
            at += piece as u64;
        }
    }

    /// Writes bytes that lie in one page.
    pub(super) fn physical_write(&mut self, gpa: u64, bytes: &[u8]) {
        if self.memory.ram().write(gpa, bytes) {
            self.note_store(gpa, bytes.len() as u64);
            return;
        }
        let mut at = gpa;
        for piece in pieces(gpa, bytes.len()) {
            let start = (at - gpa) as usize;
            self.device_write(at, &bytes[start..start + piece]);
            at += piece as u64;
        }
    }

    /// After a store to RAM that did not go through a write tag: logs it and drops code decoded from there.
    pub(super) fn note_store(&mut self, gpa: u64, _len: u64) {
        self.memory.mark_dirty(gpa);
        if self.memory.ram().is_watched(gpa) {
            self.code_written(gpa);
        }
    }

    fn device_read(&mut self, gpa: u64, data: &mut [u8]) {
        match self.cpu.apic.page_offset(gpa) {
            Some(offset) => self.cpu.apic.clone().mmio_read(offset, data),
            None => {
                self.io.mmio_read(gpa, data);
                self.trace_access(DeviceAccess::MmioRead(gpa), data);
            }
        }
    }

    fn device_write(&mut self, gpa: u64, data: &[u8]) {
        match self.cpu.apic.page_offset(gpa) {
            Some(offset) => self.cpu.apic.clone().mmio_write(offset, data, self.io),
            None => {
                self.trace_access(DeviceAccess::MmioWrite(gpa), data);
                self.io.mmio_write(gpa, data);
            }
        }
    }
}

/// Cuts an access of devices into the widths they know: powers of two up to eight.
fn pieces(gpa: u64, len: usize) -> impl Iterator<Item = usize> {
    debug_assert!(
        gpa % PAGE_SIZE + len as u64 <= PAGE_SIZE,
        "{:#x}",
        gpa & PAGE_OFFSET
    );
    let mut left = len;
    std::iter::from_fn(move || {
        let piece = [8, 4, 2, 1].into_iter().find(|&piece| piece <= left)?;
        left -= piece;
        Some(piece)
    })
}
