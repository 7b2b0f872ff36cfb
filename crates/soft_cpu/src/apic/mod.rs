//! The local APIC (Intel SDM vol. 3, chapter 11).

use hypervisor::GuestIo;

/// The local APIC of one vCPU.
#[derive(Debug, Default)]
pub(crate) struct Apic;

impl Apic {
    /// The offset of `gpa` in the register page, where that is where it lies and the mode has one.
    pub(crate) fn page_offset(&self, _gpa: u64) -> Option<u64> {
        None
    }

    /// A load from the register page.
    pub(crate) fn mmio_read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    /// A store to the register page; an EOI may go on to `io`.
    pub(crate) fn mmio_write(&self, _offset: u64, _data: &[u8], _io: &dyn GuestIo) {}
}
