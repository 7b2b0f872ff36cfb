//! Pages whose bytes somebody has a copy of, and wants to know when a device writes to them.
//!
//! `vm-memory` tells its bitmaps of every write through it; this is behind such a bitmap. Who writes by other means
//! ([`crate::RamView`], a hypervisor's guest) answers for itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};

use crate::PAGE_SIZE;

/// Who is told of writes to watched pages.
pub trait WriteObserver: Send + Sync {
    /// Bytes of the watched page at `gpa` were written. Called by whoever wrote, after the write and before it
    /// does anything else; must not block for long.
    fn page_written(&self, gpa: u64);
}

/// The watched pages of one region. Costs nothing until the first is watched.
#[derive(Debug)]
pub(crate) struct RegionWatch {
    len: u64,
    watched: OnceLock<Watched>,
}

struct Watched {
    gpa: u64,
    bits: Vec<AtomicU64>,
    observer: Arc<dyn WriteObserver>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched")
            .field("gpa", &self.gpa)
            .finish_non_exhaustive()
    }
}

impl RegionWatch {
    /// Nothing is watched in a region of `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            len: len as u64,
            watched: OnceLock::new(),
        }
    }

    /// Bytes of the region.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What `vm-memory` tells of writes from `offset` on.
    pub(crate) fn slice(&self, offset: usize) -> WatchSlice<'_> {
        WatchSlice {
            watch: self,
            start: offset,
        }
    }

    /// Names who is told, and where the region lies. The first word counts.
    pub(crate) fn observe(&self, gpa: u64, observer: Arc<dyn WriteObserver>) {
        let words = (self.len / PAGE_SIZE).div_ceil(64) as usize;
        let bits = (0..words).map(|_| AtomicU64::new(0)).collect();
        // A second observer of the same RAM would be a second VM on it, which there is not.
        let _ = self.watched.set(Watched { gpa, bits, observer });
    }

    fn bit(&self, offset: u64) -> Option<(&AtomicU64, u64)> {
        let page = offset / PAGE_SIZE;
        let word = self.watched.get()?.bits.get((page / 64) as usize)?;
        Some((word, 1 << (page % 64)))
    }

    /// Watches the page at `offset`; says whether it was not.
    pub(crate) fn watch(&self, offset: u64) -> bool {
        self.bit(offset).is_some_and(|(word, bit)| {
            word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::SeqCst) & bit == 0
        })
    }

    pub(crate) fn unwatch(&self, offset: u64) {
        if let Some((word, bit)) = self.bit(offset) {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    pub(crate) fn is_watched(&self, offset: u64) -> bool {
        self.bit(offset)
            .is_some_and(|(word, bit)| word.load(Ordering::SeqCst) & bit != 0)
    }

    /// Tells of a write.
    pub(crate) fn written(&self, offset: usize, len: usize) {
        let Some(watched) = self.watched.get().filter(|_| len > 0) else {
            return;
        };
        let (first, last) = (
            offset as u64 / PAGE_SIZE,
            (offset as u64 + len as u64 - 1) / PAGE_SIZE,
        );
        for page in first..=last {
            if self.is_watched(page * PAGE_SIZE) {
                watched.observer.page_written(watched.gpa + page * PAGE_SIZE);
            }
        }
    }
}

/// A part of a region, for `vm-memory`.
#[derive(Clone, Copy, Debug)]
pub struct WatchSlice<'a> {
    watch: &'a RegionWatch,
    start: usize,
}

impl<'a> WithBitmapSlice<'a> for WatchSlice<'_> {
    type S = Self;
}

impl BitmapSlice for WatchSlice<'_> {}

impl Bitmap for WatchSlice<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.watch.written(self.start + offset, len);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self {
            watch: self.watch,
            start: self.start + offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;
    use crate::{Bytes, GuestAddress, GuestMemory, GuestRange};

    #[derive(Default)]
    struct Seen(Mutex<Vec<u64>>);

    impl WriteObserver for Seen {
        fn page_written(&self, gpa: u64) {
            self.0.lock().unwrap().push(gpa);
        }
    }

    #[test]
    fn device_writes_to_a_watched_page_are_told_by_whatever_way() {
        let memory = GuestMemory::anonymous(&[(0, 0x4000), (0x10_0000, 0x4000)]).unwrap();
        let seen = Arc::new(Seen::default());
        memory.observe_writes(&(seen.clone() as Arc<dyn WriteObserver>));
        assert!(memory.watch(0x10_1000));
        assert!(!memory.watch(0x10_1fff));

        memory.write_obj(1_u32, GuestAddress(0x10_1ffc)).unwrap();
        memory.write_slice(&[0; 0x1000], GuestAddress(0x10_0800)).unwrap();
        memory.write_obj(1_u32, GuestAddress(0x1000)).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"bytes").unwrap();
        let range = GuestRange {
            gpa: 0x10_1100,
            len: 5,
        };
        memory.read_from_file(&[range], &file, 0).unwrap();
        memory.unwatch(0x10_1000);
        memory.write_obj(1_u32, GuestAddress(0x10_1000)).unwrap();

        assert_eq!(*seen.0.lock().unwrap(), [0x10_1000; 3]);
    }
}
