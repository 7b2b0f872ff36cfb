//! Whole stretches of a file into fresh guest RAM: kernels.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, VolatileMemory, VolatileSlice};

use crate::mapping::LARGE_PAGE;
use crate::{GuestMemory, GuestRange, PAGE_SIZE, sys};

/// More threads than this only wait for the memory bus.
const MAX_THREADS: usize = 4;

impl GuestMemory {
    /// Copies `len` bytes of `file` from `offset` on to `gpa`, where RAM is still as it was made: pieces that are
    /// zero in the file are not touched. Several threads copy, as most of the time goes into the host's making of
    /// pages.
    ///
    /// Nobody may shorten the file meanwhile: on some hosts that ends the process.
    ///
    /// # Errors
    /// `InvalidInput` where the destination is not RAM of one region, `UnexpectedEof` where the file is too short,
    /// before any byte is touched; what the file says where it cannot be read.
    pub fn load_file(&self, gpa: u64, file: &File, offset: u64, len: usize) -> io::Result<()> {
        GuestMemoryBackend::get_slice(&**self, GuestAddress(gpa), len)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if offset
            .checked_add(len as u64)
            .is_none_or(|end| file.metadata().is_ok_and(|file| file.len() < end))
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if len == 0 {
            return Ok(());
        }
        let load = Load {
            memory: self,
            gpa,
            file,
            offset,
            len,
            view: view(file, offset, len),
        };
        load.run()
    }
}

/// One call of [`GuestMemory::load_file`].
struct Load<'a> {
    memory: &'a GuestMemory,
    gpa: u64,
    file: &'a File,
    offset: u64,
    len: usize,
    /// The file from the page of `offset` on, where it can be mapped.
    view: Option<MmapRegion>,
}

impl Load<'_> {
    fn run(&self) -> io::Result<()> {
        let pieces = self.pieces();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(&(start, len)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.copy(start, len)?;
            }
            Ok(())
        };
        let helpers = match (pieces.len() / 2).min(MAX_THREADS) {
            0 | 1 => 0,
            most => thread::available_parallelism().map_or(1, NonZero::get).min(most) - 1,
        };
        thread::scope(|scope| {
            // A host without threads to spare copies on this one.
            let helpers: Vec<_> = (0..helpers)
                .map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
                .collect();
            let mut outcome = work();
            for helper in helpers {
                let panicked = |_| Err(io::Error::other("a thread that copied a file panicked"));
                outcome = outcome.and(helper.join().unwrap_or_else(panicked));
            }
            outcome
        })
    }

    /// Where pieces start and how long they are: each within a large page of the guest, so that two threads never
    /// wait for the making of the same one.
    fn pieces(&self) -> Vec<(usize, usize)> {
        let mut pieces = Vec::with_capacity(self.len / LARGE_PAGE + 2);
        let mut start = 0;
        while start < self.len {
            let room = LARGE_PAGE - (self.gpa as usize).wrapping_add(start) % LARGE_PAGE;
            let len = room.min(self.len - start);
            pieces.push((start, len));
            start += len;
        }
        pieces
    }

    fn copy(&self, start: usize, len: usize) -> io::Result<()> {
        let gpa = self.gpa + start as u64;
        let Some(source) = self.source(start, len) else {
            return self.read(gpa, self.offset + start as u64, len);
        };
        if !is_zero(&source) {
            let target = GuestMemoryBackend::get_slice(&**self.memory, GuestAddress(gpa), len)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            source.copy_to_volatile_slice(target);
        }
        Ok(())
    }

    /// A piece of the view, in memory; `None` where there is no view or the file cannot be read, which would end the
    /// process here and is an error where it is read.
    fn source(&self, start: usize, len: usize) -> Option<VolatileSlice<'_>> {
        let first = (self.offset % PAGE_SIZE) as usize + start;
        let skip = first % PAGE_SIZE as usize;
        let pages = self.view.as_ref()?.get_slice(first - skip, skip + len).ok()?;
        if !sys::read_ahead(&pages) {
            return None;
        }
        pages.offset(skip).ok()
    }

    fn read(&self, gpa: u64, offset: u64, len: usize) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let range = GuestRange {
                gpa: gpa + done as u64,
                len: len - done,
            };
            match self
                .memory
                .read_from_file(&[range], self.file, offset + done as u64)?
            {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }
}

/// Maps the file; `None` where that does not work, as for one that is no plain file.
fn view(file: &File, offset: u64, len: usize) -> Option<MmapRegion> {
    let skip = offset % PAGE_SIZE;
    let file = FileOffset::new(file.try_clone().ok()?, offset - skip);
    MmapRegionBuilder::new(len.checked_add(skip as usize)?)
        .with_mmap_prot(libc::PROT_READ)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
        .with_file_offset(file)
        .build()
        .ok()
}

/// Whether all bytes are zero; mostly known after the first few.
fn is_zero(slice: &VolatileSlice<'_>) -> bool {
    let mut bytes = [0_u8; PAGE_SIZE as usize];
    let mut start = 0;
    while start < slice.len() {
        let Ok(rest) = slice.offset(start) else {
            return false;
        };
        let count = rest.copy_to(&mut bytes);
        if bytes[..count].iter().any(|byte| *byte != 0) {
            return false;
        }
        start += count;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use vm_memory::Bytes;

    use super::*;

    const LEN: usize = 2 * LARGE_PAGE;

    /// 8 MiB of RAM, and a file of zeros but for a few bytes around each large page of the guest.
    fn guest_and_file() -> (GuestMemory, File, Vec<u8>) {
        let mut contents = vec![0; 3 * LARGE_PAGE];
        for (number, byte) in contents.iter_mut().step_by(LARGE_PAGE / 2 - 7).enumerate() {
            *byte = number as u8 + 1;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&contents).unwrap();
        let memory = GuestMemory::anonymous(&[(0, 4 * LARGE_PAGE as u64)]).unwrap();
        (memory, file, contents)
    }

    fn bytes_at(memory: &GuestMemory, gpa: u64) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        memory.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    #[test]
    fn load_file_at_odd_addresses_copies_every_byte() {
        for (gpa, offset) in [
            (0, 0),
            (0x1234, 0),
            (LARGE_PAGE as u64 - 1, 0xfff),
            (0x1000, 0x12_3456),
        ] {
            let (memory, file, contents) = guest_and_file();

            memory.load_file(gpa, &file, offset, LEN).unwrap();

            let wanted = &contents[offset as usize..offset as usize + LEN];
            assert!(bytes_at(&memory, gpa) == wanted, "{gpa:#x} from {offset:#x}");
        }
    }

    #[test]
    fn load_file_that_cannot_be_mapped_is_read() {
        let (memory, file, contents) = guest_and_file();
        let load = Load {
            memory: &memory,
            gpa: 0x800,
            file: &file,
            offset: 5,
            len: LEN,
            view: None,
        };

        load.run().unwrap();

        assert!(bytes_at(&memory, 0x800) == contents[5..5 + LEN]);
    }

    #[test]
    fn load_file_too_short_is_refused_before_any_byte() {
        let (memory, mut file, _) = guest_and_file();
        file.seek(SeekFrom::Start(0)).unwrap();
        for (offset, len) in [(0, 3 * LARGE_PAGE + 1), (3 * LARGE_PAGE as u64, 1), (u64::MAX, 1)] {
            let error = memory.load_file(0, &file, offset, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0)).unwrap(), 0);
    }

    #[test]
    fn load_file_outside_ram_is_refused() {
        let (memory, file, _) = guest_and_file();
        for gpa in [4 * LARGE_PAGE as u64 - 1, u64::MAX] {
            let error = memory.load_file(gpa, &file, 0, 2).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn load_file_nothing_is_nothing() {
        let (memory, file, _) = guest_and_file();
        memory.load_file(0, &file, 0, 0).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0)).unwrap(), 0);
    }
}
