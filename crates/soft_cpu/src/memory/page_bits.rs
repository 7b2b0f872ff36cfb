//! One bit for each page of RAM.

use std::sync::atomic::{AtomicU64, Ordering};

use guest_memory::RamRegion;

use super::PAGE_SIZE;

/// A bit for each page of some stretches of RAM, shared by vCPUs. Pages outside have a bit that stays clear.
#[derive(Debug, Default)]
pub(crate) struct PageBits {
    regions: Vec<(u64, u64, Vec<AtomicU64>)>,
}

impl PageBits {
    pub(crate) fn covering(regions: &[RamRegion]) -> Self {
        let bits = |region: &RamRegion| {
            let words = (region.len / PAGE_SIZE).div_ceil(64) as usize;
            (
                region.gpa,
                region.len,
                (0..words).map(|_| AtomicU64::new(0)).collect(),
            )
        };
        Self {
            regions: regions.iter().map(bits).collect(),
        }
    }

    fn place(&self, gpa: u64) -> Option<(&AtomicU64, u64)> {
        let (base, _, words) = self
            .regions
            .iter()
            .find(|(base, len, _)| gpa.wrapping_sub(*base) < *len)?;
        let page = (gpa - base) / PAGE_SIZE;
        Some((words.get((page / 64) as usize)?, 1 << (page % 64)))
    }

    /// Sets the bit of the page at `gpa`.
    pub(crate) fn set(&self, gpa: u64) {
        if let Some((word, bit)) = self.place(gpa)
            && word.load(Ordering::Relaxed) & bit == 0
        {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// The pages whose bits are set, in ascending order in each stretch; clears them.
    pub(crate) fn take(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        for (base, _, words) in &self.regions {
            for (index, word) in (0..).zip(words) {
                let mut bits = word.swap(0, Ordering::SeqCst);
                while bits != 0 {
                    pages.push(base + (index * 64 + u64::from(bits.trailing_zeros())) * PAGE_SIZE);
                    bits &= bits - 1;
                }
            }
        }
        pages
    }
}
