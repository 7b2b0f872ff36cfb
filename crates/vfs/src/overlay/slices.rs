//! Requests and replies that are plain memory, for what the host itself reads and writes.

use std::fs::File;
use std::io;

use device_backends::{ReplySink, RequestSource};
use rustix::io::{pread, pwrite};

/// Bytes to write.
pub(super) struct SliceSource<'a>(pub(super) &'a [u8]);

impl RequestSource for SliceSource<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        let from = offset
            .checked_add(bytes.len())
            .and_then(|end| self.0.get(offset..end));
        bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_to_file(&self, offset: usize, len: usize, file: &File, file_offset: u64) -> io::Result<usize> {
        let from = offset.checked_add(len).and_then(|end| self.0.get(offset..end));
        Ok(pwrite(
            file,
            from.ok_or(io::ErrorKind::UnexpectedEof)?,
            file_offset,
        )?)
    }
}

/// Space for bytes read.
pub(super) struct SliceSink<'a>(pub(super) &'a mut [u8]);

impl SliceSink<'_> {
    fn part(&mut self, offset: usize, len: usize) -> io::Result<&mut [u8]> {
        let part = offset
            .checked_add(len)
            .and_then(|end| self.0.get_mut(offset..end));
        part.ok_or_else(|| io::ErrorKind::WriteZero.into())
    }
}

impl ReplySink for SliceSink<'_> {
    fn capacity(&self) -> usize {
        self.0.len()
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.part(offset, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn fill_from_file(&mut self, offset: usize, len: usize, file: &File, at: u64) -> io::Result<usize> {
        Ok(pread(file, self.part(offset, len)?, at)?)
    }
}
