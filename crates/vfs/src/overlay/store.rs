//! Where the changed bytes of an overlay lie, and how much the guest may use.
//!
//! All files share one sparse scratch file, without a name, cut into blocks of 4 KiB. The other choice, one
//! anonymous file for each changed file, costs a descriptor for each, and a guest that unpacks an archive
//! has more of them than a process may open. One file keeps `READ` and `WRITE` free of copies (the reply is
//! filled straight from it) and is one thing to store with a snapshot.
//!
//! Blocks that are not in use read as zeros: they were never written, or a hole was punched where they lay.
//! Address space in a sparse file costs nothing, so new blocks come from its end, where files stay in one
//! piece; old addresses are used again only when the end is reached.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, fallocate, memfd_create};
use rustix::io::{Errno, pwrite};

use crate::attr::BLOCK_SIZE;
use crate::error::Error;
use crate::sync::lock;

/// Size of a block in bytes.
pub(super) const BLOCK: u64 = BLOCK_SIZE as u64;
/// How many blocks the scratch file may span: 8 TiB, half of what ext4 allows a file.
const END_MAX: u64 = 1 << 31;
static ZERO_BLOCK: [u8; BLOCK_SIZE as usize] = [0; BLOCK_SIZE as usize];

/// Where the scratch file is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scratch {
    /// In memory (a memfd): gone with the process, bounded by the host's memory.
    #[default]
    Memory,
    /// Without a name in this directory: the host writes it to disk when memory is short. The file system
    /// must know O_TMPFILE.
    Directory(PathBuf),
}

/// Consecutive blocks of the scratch file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) len: u64,
}

/// The scratch file, its free blocks, and the guest's budget.
pub(super) struct Store {
    file: File,
    space: Mutex<Space>,
    pub(super) bytes: Budget,
    pub(super) inodes: Budget,
}

struct Space {
    /// Free blocks below `end`: start to length, never two touching.
    free: BTreeMap<u64, u64>,
    /// First block that was never in use.
    end: u64,
}

impl Store {
    pub(super) fn new(scratch: &Scratch, max_bytes: u64, max_inodes: u64) -> Result<Self, Error> {
        let file = match scratch {
            Scratch::Memory => {
                memfd_create("overlay-scratch", MemfdFlags::CLOEXEC).map_err(Error::ScratchMemory)?
            }
            Scratch::Directory(directory) => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).map_err(|source| {
                    Error::ScratchDirectory {
                        directory: directory.clone(),
                        source,
                    }
                })?
            }
        };
        Ok(Self {
            file: File::from(file),
            space: Mutex::new(Space {
                free: BTreeMap::new(),
                end: 0,
            }),
            bytes: Budget::new(max_bytes),
            inodes: Budget::new(max_inodes),
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Takes 1..=`want` blocks, those from `near` on if they are free. They read as zeros.
    pub(super) fn allocate(&self, want: u64, near: Option<u64>) -> Result<Run, Errno> {
        // Short of the whole, a part is better than nothing: the write becomes a short one.
        let want = want.min((self.bytes.left() / BLOCK).max(1));
        self.bytes.charge(want * BLOCK)?;
        let run = lock(&self.space).take(want, near);
        let taken = run.map_or(0, |run| run.len);
        self.bytes.refund((want - taken) * BLOCK);
        run.ok_or(Errno::NOSPC)
    }

    /// Gives blocks back.
    pub(super) fn release(&self, run: Run) {
        let (offset, len) = (run.start * BLOCK, run.len * BLOCK);
        let punched = fallocate(
            &self.file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            offset,
            len,
        );
        self.bytes.refund(len);
        if punched.is_ok() || self.write_zeros(run).is_ok() {
            lock(&self.space).give_back(run);
        } else {
            // Blocks that are not known to be zeros are never used again.
            tracing::warn!(blocks = run.len, "cannot clear blocks of the scratch file");
        }
    }

    fn write_zeros(&self, run: Run) -> Result<(), Errno> {
        for block in run.start..run.start + run.len {
            let mut done = 0;
            while done < ZERO_BLOCK.len() {
                let written = pwrite(&self.file, &ZERO_BLOCK[done..], block * BLOCK + done as u64)?;
                if written == 0 {
                    return Err(Errno::IO);
                }
                done += written;
            }
        }
        Ok(())
    }
}

impl Space {
    fn take(&mut self, want: u64, near: Option<u64>) -> Option<Run> {
        if let Some(start) = near.filter(|start| self.free.contains_key(start)) {
            return self.take_free(start, want);
        }
        let fresh = want.min(END_MAX - self.end);
        if fresh > 0 {
            let run = Run {
                start: self.end,
                len: fresh,
            };
            self.end += fresh;
            return Some(run);
        }
        let start = *self.free.keys().next()?;
        self.take_free(start, want)
    }

    fn take_free(&mut self, start: u64, want: u64) -> Option<Run> {
        let available = self.free.remove(&start)?;
        let len = want.min(available);
        if available > len {
            self.free.insert(start + len, available - len);
        }
        Some(Run { start, len })
    }

    fn give_back(&mut self, run: Run) {
        let Run { mut start, mut len } = run;
        if let Some(behind) = self.free.remove(&(start + len)) {
            len += behind;
        }
        let before = self
            .free
            .range(..start)
            .next_back()
            .map(|(&start, &len)| (start, len));
        if let Some((before_start, before_len)) = before.filter(|(at, count)| at + count == start) {
            start = before_start;
            len += before_len;
        }
        if start + len == self.end {
            self.free.remove(&start);
            self.end = start;
        } else {
            self.free.insert(start, len);
        }
    }
}

/// An amount of which no more than a maximum may be used.
pub(super) struct Budget {
    used: AtomicU64,
    max: u64,
}

impl Budget {
    fn new(max: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            max,
        }
    }

    /// Uses `amount` more, or fails with ENOSPC.
    pub(super) fn charge(&self, amount: u64) -> Result<(), Errno> {
        let more = |used: u64| used.checked_add(amount).filter(|&used| used <= self.max);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map(drop)
            .map_err(|_| Errno::NOSPC)
    }

    /// Uses `amount` more even beyond the maximum: for what the image bounds, so that a guest with a full
    /// disk can still remove files.
    pub(super) fn charge_always(&self, amount: u64) {
        self.used.fetch_add(amount, Ordering::Relaxed);
    }

    /// Gives `amount` back.
    pub(super) fn refund(&self, amount: u64) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
    }

    pub(super) fn left(&self) -> u64 {
        self.max.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(blocks: u64) -> Store {
        Store::new(&Scratch::Memory, blocks * BLOCK, 10).expect("a memfd")
    }

    #[test]
    fn allocate_beyond_budget_is_cut_then_refused() {
        let store = store(3);

        assert_eq!(store.allocate(2, None), Ok(Run { start: 0, len: 2 }));
        assert_eq!(store.allocate(2, None), Ok(Run { start: 2, len: 1 }));
        assert_eq!(store.allocate(1, None), Err(Errno::NOSPC));
    }

    #[test]
    fn release_at_the_end_shrinks_the_file_and_in_the_middle_keeps_a_free_run() {
        let store = store(8);
        let first = store.allocate(2, None).expect("space");
        let second = store.allocate(2, None).expect("space");
        let third = store.allocate(2, None).expect("space");

        store.release(second);
        assert_eq!(lock(&store.space).free, BTreeMap::from([(2, 2)]));
        assert_eq!(store.allocate(1, Some(2)), Ok(Run { start: 2, len: 1 }));
        store.release(third);
        store.release(Run { start: 2, len: 1 });
        store.release(first);

        let space = lock(&store.space);
        assert_eq!((space.end, space.free.len()), (0, 0));
        assert_eq!(store.bytes.left(), 8 * BLOCK);
    }

    #[test]
    fn released_blocks_read_as_zeros() {
        let store = store(2);
        let run = store.allocate(1, None).expect("space");
        pwrite(store.file(), b"secret", 0).expect("written");

        store.release(run);

        let mut bytes = [1; 6];
        rustix::io::pread(store.file(), &mut bytes, 0).expect("read");
        assert_eq!(bytes, [0; 6]);
    }
}
