//! The contents of one changed regular file: blocks of the scratch file over the image's bytes.

mod saved;

use std::sync::Arc;

use rustix::io::{Errno, pread, pwrite};

use super::extents::{ExtentMap, Place};
use super::store::{BLOCK, Run, Store};
use crate::protocol::{SEEK_DATA, SEEK_HOLE};
use crate::read_only::Content;
use crate::transfer::{ReadBuffer, WriteSource};

pub(super) use self::saved::SavedContents;

/// A regular file's bytes.
///
/// Only blocks that were written have been copied: the others come from the image, as far as `image_end`.
/// Two things always hold: bytes of a block behind the end of the file are zeros, and bytes behind
/// `image_end` never come from the image.
pub(super) struct Contents {
    store: Arc<Store>,
    size: u64,
    extents: ExtentMap,
    image: Option<Content>,
    /// How many bytes of the image still show, if no extent covers them.
    image_end: u64,
}

/// Where bytes of a file lie.
enum Source {
    Scratch(u64),
    Image(u64),
    Zeros,
}

impl Contents {
    pub(super) fn new(store: Arc<Store>, image: Option<Content>) -> Self {
        let size = image.as_ref().map_or(0, |image| image.len);
        Self {
            store,
            size,
            extents: ExtentMap::default(),
            image,
            image_end: size,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Space taken, in units of 512 bytes, the image's included.
    pub(super) fn sectors(&self) -> u64 {
        let mut blocks = self.extents.data_blocks();
        if self.extents.is_empty() {
            blocks += self.image_end.div_ceil(BLOCK);
        } else {
            let mut offset = 0;
            while offset < self.image_end {
                let (source, end) = self.source(offset, self.image_end);
                if matches!(source, Source::Image(_)) {
                    blocks += (end - offset).div_ceil(BLOCK);
                }
                offset = end;
            }
        }
        blocks * (BLOCK / 512)
    }

    /// Where the byte at `offset` lies and how far, at most to `limit`, the bytes behind it follow.
    fn source(&self, offset: u64, limit: u64) -> (Source, u64) {
        let (place, run_end) = self.extents.run_at(offset / BLOCK);
        let end = limit.min(run_end.saturating_mul(BLOCK));
        match place {
            Some(Place::Scratch(block)) => (Source::Scratch(block * BLOCK + offset % BLOCK), end),
            Some(Place::Zero) => (Source::Zeros, end),
            None => match &self.image {
                Some(image) if offset < self.image_end => {
                    (Source::Image(image.offset + offset), end.min(self.image_end))
                }
                _ => (Source::Zeros, end),
            },
        }
    }

    pub(super) fn read(&self, offset: u64, out: &mut ReadBuffer<'_>) -> Result<(), Errno> {
        let end = self.size.min(offset.saturating_add(out.remaining() as u64));
        let mut at = offset;
        while at < end {
            let (source, segment_end) = self.source(at, end);
            // Both lie within one reply, so the difference fits.
            let len = (segment_end - at) as usize;
            match source {
                Source::Scratch(place) => {
                    let read = out.fill_from_file(self.store.file(), place, len)?;
                    // Blocks at the end of the scratch file that were reserved but never written.
                    out.fill_zeros(len - read)?;
                }
                Source::Image(place) => {
                    let image = self.image.as_ref().ok_or(Errno::IO)?;
                    if out.fill_from_file(&image.file, place, len)? < len {
                        return Err(Errno::IO);
                    }
                }
                Source::Zeros => out.fill_zeros(len)?,
            }
            at = segment_end;
        }
        Ok(())
    }

    /// Writes all of `data` at `offset`, or as much as there is space for.
    pub(super) fn write(&mut self, offset: u64, data: &mut WriteSource<'_>) -> Result<usize, Errno> {
        let end = offset.saturating_add(data.remaining() as u64);
        let mut at = offset;
        while at < end {
            let written = match self.write_run(at, end, data) {
                Ok(0) => Err(Errno::IO),
                outcome => outcome,
            };
            match written {
                Ok(written) => at += written as u64,
                Err(error) if at == offset => return Err(error),
                Err(_) => break,
            }
            self.size = self.size.max(at);
        }
        Ok((at - offset) as usize)
    }

    /// Writes what begins at `at` and lies in one place.
    fn write_run(&mut self, at: u64, end: u64, data: &mut WriteSource<'_>) -> Result<usize, Errno> {
        let first = at / BLOCK;
        let (place, run_end) = self.extents.run_at(first);
        let end = end.min(run_end.saturating_mul(BLOCK));
        if let Some(Place::Scratch(block)) = place {
            return data.write_to_file((end - at) as usize, self.store.file(), block * BLOCK + at % BLOCK);
        }
        let near = match first.checked_sub(1).map(|before| self.extents.run_at(before).0) {
            Some(Some(Place::Scratch(block))) => Some(block + 1),
            _ => None,
        };
        let run = self.store.allocate(end.div_ceil(BLOCK) - first, near)?;
        let end = end.min((first + run.len) * BLOCK);
        match self.write_fresh(at, end, run, data) {
            Ok(written) => {
                let used = (at + written as u64).div_ceil(BLOCK) - first;
                self.adopt(first, run, used);
                Ok(written)
            }
            Err(error) => {
                self.store.release(run);
                Err(error)
            }
        }
    }

    /// Writes data to blocks that are not yet the file's, with what was before and behind it in the first
    /// and the last of them.
    fn write_fresh(&self, at: u64, end: u64, run: Run, data: &mut WriteSource<'_>) -> Result<usize, Errno> {
        let base = at / BLOCK * BLOCK;
        let place = run.start * BLOCK;
        self.copy_old(base, at, place)?;
        let written = data.write_to_file((end - at) as usize, self.store.file(), place + (at - base))?;
        let written_end = at + written as u64;
        let last_end = written_end.next_multiple_of(BLOCK);
        self.copy_old(written_end, last_end, place + (written_end - base))?;
        Ok(written)
    }

    /// Copies the image's bytes that still show in `from..to`, within one block, to the scratch file.
    fn copy_old(&self, from: u64, to: u64, place: u64) -> Result<(), Errno> {
        let to = to.min(self.image_end);
        if from >= to || !matches!(self.source(from, to).0, Source::Image(_)) {
            return Ok(());
        }
        let image = self.image.as_ref().ok_or(Errno::IO)?;
        let mut buffer = [0; BLOCK as usize];
        let buffer = buffer.get_mut(..(to - from) as usize).ok_or(Errno::IO)?;
        let mut done = 0;
        while done < buffer.len() {
            match pread(
                &image.file,
                &mut buffer[done..],
                image.offset + from + done as u64,
            )? {
                0 => return Err(Errno::IO),
                more => done += more,
            }
        }
        self.write_scratch(place, buffer)
    }

    fn write_scratch(&self, place: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            match pwrite(self.store.file(), &bytes[done..], place + done as u64)? {
                0 => return Err(Errno::IO),
                more => done += more,
            }
        }
        Ok(())
    }

    /// Makes the first `used` blocks of `run` the file's, from block `first` on, and gives back the rest.
    fn adopt(&mut self, first: u64, run: Run, used: u64) {
        let used = used.min(run.len);
        // Only a punched hole may have been there, which has no blocks to give back.
        self.extents.remove(first, first + used);
        self.extents.insert(first, used, Place::Scratch(run.start));
        if used < run.len {
            self.store.release(Run {
                start: run.start + used,
                len: run.len - used,
            });
        }
    }

    pub(super) fn truncate(&mut self, size: u64) -> Result<(), Errno> {
        if size < self.size {
            let tail = size.next_multiple_of(BLOCK).min(self.size);
            // Of the image's bytes only as many as `image_end` says ever show again.
            if size < tail && matches!(self.source(size, tail).0, Source::Scratch(_)) {
                self.zero_in_block(size, tail)?;
            }
            for run in self.extents.remove(size.div_ceil(BLOCK), u64::MAX) {
                self.store.release(run);
            }
            self.image_end = self.image_end.min(size);
        }
        self.size = size;
        Ok(())
    }

    /// `fallocate(2)` without a hole: reserves blocks where the file has none. Bytes that still come from
    /// the image have their space there; writing them later may meet ENOSPC.
    pub(super) fn reserve(&mut self, offset: u64, end: u64, keep_size: bool) -> Result<(), Errno> {
        let mut block = offset / BLOCK;
        let last = end.div_ceil(BLOCK);
        while block < last {
            let (place, run_end) = self.extents.run_at(block);
            let mut next = run_end.min(last);
            let from_image = place.is_none() && block * BLOCK < self.image_end;
            if from_image {
                next = next.min(self.image_end.div_ceil(BLOCK));
            } else if !matches!(place, Some(Place::Scratch(_))) {
                let run = self.store.allocate(next - block, None)?;
                self.adopt(block, run, run.len);
                next = block + run.len;
            }
            block = next;
        }
        if !keep_size {
            self.size = self.size.max(end);
        }
        Ok(())
    }

    /// Makes `offset..end` read as zeros, giving back whole blocks; the size stays.
    pub(super) fn punch(&mut self, offset: u64, end: u64) -> Result<(), Errno> {
        let (first, last) = (offset.div_ceil(BLOCK), end / BLOCK);
        if first > last {
            return self.zero_in_block(offset, end.min(self.size));
        }
        self.zero_in_block(offset, (first * BLOCK).min(self.size))?;
        self.zero_in_block(last * BLOCK, end.min(self.size))?;
        for run in self.extents.remove(first, last) {
            self.store.release(run);
        }
        let image_blocks = self.image_end.div_ceil(BLOCK).min(last);
        if first < image_blocks {
            self.extents.insert(first, image_blocks - first, Place::Zero);
        }
        Ok(())
    }

    /// Zeros bytes of one block that lie in the file, and never the file's end beyond.
    fn zero_in_block(&mut self, from: u64, to: u64) -> Result<(), Errno> {
        if from >= to {
            return Ok(());
        }
        let zeros = [0; BLOCK as usize];
        let zeros = zeros.get(..(to - from) as usize).ok_or(Errno::IO)?;
        match self.source(from, to) {
            (Source::Scratch(place), _) => self.write_scratch(place, zeros),
            (Source::Image(_), _) => {
                let bytes = super::slices::SliceSource(zeros);
                self.write(from, &mut WriteSource::new(&bytes, 0, zeros.len()))
                    .map(drop)
            }
            (Source::Zeros, _) => Ok(()),
        }
    }

    /// `lseek(2)` with SEEK_DATA or SEEK_HOLE; there is a hole behind the last byte.
    pub(super) fn seek(&self, offset: u64, whence: u32) -> Result<u64, Errno> {
        if !matches!(whence, SEEK_DATA | SEEK_HOLE) {
            return Err(Errno::INVAL);
        }
        if offset >= self.size {
            return Err(Errno::NXIO);
        }
        let mut at = offset;
        while at < self.size {
            let (source, end) = self.source(at, self.size);
            if matches!(source, Source::Zeros) == (whence == SEEK_HOLE) {
                return Ok(at);
            }
            at = end;
        }
        if whence == SEEK_HOLE {
            Ok(self.size)
        } else {
            Err(Errno::NXIO)
        }
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        for run in self.extents.remove(0, u64::MAX) {
            self.store.release(run);
        }
    }
}
