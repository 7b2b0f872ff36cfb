//! Guest RAM as a cloneable handle.
//!
//! **Knows:** which guest-physical ranges are RAM and where the host has them mapped.
//! **Must never know:** what lies in that RAM, devices, CPUs. Every access to guest bytes in the whole
//! project goes through this crate (and `vm-memory` below it), bounds-checked and volatile, because the
//! guest may change any byte at any moment.
//!
//! `unsafe` is allowed here for mapping and for handing raw host addresses to a hypervisor.

mod file_io;
mod image;
mod load_file;
mod mapping;
mod ram_view;
mod sys;
mod touched;
mod watch;

use std::ops::Deref;
use std::sync::Arc;

pub use file_io::GuestRange;
pub use image::{Extent, copy_data};
pub use ram_view::RamView;
use vm_memory::mmap::{FromRangesError, GuestRegionMmap, MmapRegion, MmapRegionBuilder, MmapRegionError};
pub use vm_memory::{
    ByteValued, Bytes, GuestAddress, GuestMemory as GuestMemoryAccess, GuestMemoryBackend, GuestMemoryRegion,
    MemoryRegionAddress, VolatileMemory, VolatileSlice,
};
use vm_memory::{GuestMemoryMmap, GuestRegionCollection};
pub use watch::WriteObserver;

use mapping::Mapping;
use watch::RegionWatch;

/// Size of the smallest page that RAM is made of, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// Why guest RAM could not be had or touched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A region's address or length is not a multiple of [`PAGE_SIZE`], or its length is 0.
    #[error("guest RAM region {gpa:#x}+{len:#x} is empty or not aligned to pages")]
    Misaligned {
        /// First guest-physical address.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The host would not map that much, or regions overlap.
    #[error("guest RAM cannot be mapped")]
    Map(#[source] FromRangesError),
}

/// One stretch of guest RAM and where the host has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRegion {
    /// First guest-physical address.
    pub gpa: u64,
    /// Length in bytes, a multiple of [`PAGE_SIZE`].
    pub len: u64,
    /// Host virtual address of its first byte. Valid as long as the [`GuestMemory`] it came from, or a clone
    /// of it, lives.
    pub host_address: usize,
}

/// All RAM of one guest. Clones share it; the mapping goes with the last clone.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    map: Arc<GuestMemoryMmap<Mapping>>,
}

impl GuestMemory {
    /// Maps zeroed anonymous RAM for each `(gpa, len)`; pages cost host memory when first touched, large ones where
    /// the host has them.
    ///
    /// # Errors
    /// Regions that are misaligned, empty or overlap, and a host that refuses.
    pub fn anonymous(regions: &[(u64, u64)]) -> Result<Self, Error> {
        let mut mapped = Vec::with_capacity(regions.len());
        for &(gpa, len) in regions {
            if len == 0 || gpa % PAGE_SIZE != 0 || len % PAGE_SIZE != 0 || gpa.checked_add(len).is_none() {
                return Err(Error::Misaligned { gpa, len });
            }
            mapped.push(map_region(gpa, len as usize).map_err(Error::Map)?);
        }
        let map = GuestRegionCollection::from_regions(mapped).map_err(|error| Error::Map(error.into()))?;
        Ok(Self { map: Arc::new(map) })
    }

    /// The stretches of RAM, in ascending order of address.
    pub fn regions(&self) -> Vec<RamRegion> {
        self.map
            .iter()
            .map(|region| RamRegion {
                gpa: region.start_addr().0,
                len: region.len(),
                host_address: region.as_ptr() as usize,
            })
            .collect()
    }

    /// Tells `observer` of writes to pages that are [watched](Self::watch). Can be called once for all clones.
    pub fn observe_writes(&self, observer: &Arc<dyn WriteObserver>) {
        for region in self.map.iter() {
            MmapRegion::bitmap(region)
                .watch()
                .observe(region.start_addr().0, observer.clone());
        }
    }

    /// Watches the page at `gpa`; says whether it was not watched before. Without an observer there is nothing to
    /// watch for.
    pub fn watch(&self, gpa: u64) -> bool {
        self.watched_region(gpa)
            .is_some_and(|(watch, offset)| watch.watch(offset))
    }

    /// Watches the page at `gpa` no more.
    pub fn unwatch(&self, gpa: u64) {
        if let Some((watch, offset)) = self.watched_region(gpa) {
            watch.unwatch(offset);
        }
    }

    /// Whether the page at `gpa` is watched.
    pub fn is_watched(&self, gpa: u64) -> bool {
        self.watched_region(gpa)
            .is_some_and(|(watch, offset)| watch.is_watched(offset))
    }

    fn watched_region(&self, gpa: u64) -> Option<(&RegionWatch, u64)> {
        let region = self.map.find_region(GuestAddress(gpa))?;
        Some((MmapRegion::bitmap(region).watch(), gpa - region.start_addr().0))
    }

    /// All RAM together, in bytes.
    pub fn total_len(&self) -> u64 {
        self.map.iter().map(|region| region.len()).sum()
    }
}

fn map_region(gpa: u64, len: usize) -> Result<GuestRegionMmap<Mapping>, FromRangesError> {
    let mapping = Mapping::anonymous(gpa, len).map_err(MmapRegionError::Mmap)?;
    let start = mapping.start();
    let builder = MmapRegionBuilder::new_with_bitmap(len, mapping);
    // SAFETY: `mapping` has `len` bytes at `start`, and lives in the region as its bitmap, as long as the region.
    let region = unsafe { builder.with_raw_mmap_pointer(start) }
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
        .build()?;
    if let Ok(all) = region.get_slice(0, len) {
        sys::prefer_large_pages(&all);
    }
    GuestRegionMmap::new(region, GuestAddress(gpa)).ok_or(FromRangesError::InvalidGuestRegion)
}

/// `vm-memory`'s traits ([`Bytes`], [`GuestMemoryAccess`]) work on a handle directly, and `virtio-queue`
/// takes it by this bound.
impl Deref for GuestMemory {
    type Target = GuestMemoryMmap<Mapping>;

    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_two_regions_reads_back_and_refuses_the_gap() {
        let memory = GuestMemory::anonymous(&[(0, 0x2000), (0x10_0000, 0x1000)]).unwrap();
        memory
            .write_obj(0x1122_3344_u32, GuestAddress(0x10_0ff0))
            .unwrap();
        assert_eq!(
            memory.read_obj::<u32>(GuestAddress(0x10_0ff0)).unwrap(),
            0x1122_3344
        );
        assert!(memory.read_obj::<u32>(GuestAddress(0x1ffe)).is_err());
        assert_eq!(memory.total_len(), 0x3000);
    }

    #[test]
    fn anonymous_misaligned_or_overlapping_is_refused() {
        assert!(GuestMemory::anonymous(&[(0, 0x1001)]).is_err());
        assert!(GuestMemory::anonymous(&[(0, 0)]).is_err());
        assert!(GuestMemory::anonymous(&[(0, 0x2000), (0x1000, 0x1000)]).is_err());
    }

    #[test]
    fn clone_shares_bytes_with_the_original() {
        let memory = GuestMemory::anonymous(&[(0, 0x1000)]).unwrap();
        let other = memory.clone();
        memory.write_obj(7_u8, GuestAddress(5)).unwrap();
        assert_eq!(other.read_obj::<u8>(GuestAddress(5)).unwrap(), 7);
    }
}
