//! From linear addresses to guest RAM and devices: segmentation, paging, the TLB, and the pages that hold
//! decoded code.
//!
//! Nothing else in this crate reaches guest bytes. A guest-physical address becomes a host address only through
//! `guest_memory`'s bounds; what is not RAM goes to the local APIC or to [`hypervisor::GuestIo`].

mod access;
mod operand;
mod page_bits;
mod paging;
mod physical;
#[cfg(test)]
mod tests;
mod tlb;

use guest_memory::{GuestMemory, RamView};

pub(crate) use operand::within_limit;
use page_bits::PageBits;
pub(crate) use paging::{Access, PHYSICAL_BITS, is_canonical};
pub(crate) use tlb::{ENTRIES as TLB_ENTRIES, Entry as TlbEntry, Generations, Tlb};

/// Size of the smallest page, and the mask of an offset in it.
pub(crate) const PAGE_SIZE: u64 = 4096;
pub(crate) const PAGE_OFFSET: u64 = PAGE_SIZE - 1;

/// The physical memory of one VM, shared by its vCPUs.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    ram: RamView,
    /// Pages written since the last look, where that is logged.
    dirty: PageBits,
    log_dirty: bool,
}

impl Memory {
    /// This memory with more RAM in it.
    pub(crate) fn with(&self, more: &GuestMemory, log_dirty: bool) -> Self {
        let mut ram = self.ram.clone();
        ram.add(more);
        let dirty = PageBits::covering(ram.regions());
        Self {
            ram,
            dirty,
            log_dirty,
        }
    }

    /// RAM. Pages that some vCPU has decoded code from are watched.
    pub(crate) fn ram(&self) -> &RamView {
        &self.ram
    }

    /// Notes that the page at `gpa` is written.
    pub(crate) fn mark_dirty(&self, gpa: u64) {
        if self.log_dirty {
            self.dirty.set(gpa);
        }
    }

    /// Whether stores are logged.
    pub(crate) fn logs_dirty(&self) -> bool {
        self.log_dirty
    }

    /// The pages written since the last call. Every vCPU must forget which pages it may write without asking.
    pub(crate) fn take_dirty(&self) -> Vec<u64> {
        self.dirty.take()
    }
}
