//! File contents on their way between a request or reply and a host file.

use std::fs::File;

use device_backends::{ReplySink, RequestSource};
use rustix::io::Errno;

/// Zeros to send for holes.
static ZEROS: [u8; 4096] = [0; 4096];

/// The part of a reply that takes file contents, filled from its start.
pub struct ReadBuffer<'a> {
    sink: &'a mut dyn ReplySink,
    start: usize,
    len: usize,
    filled: usize,
}

impl<'a> ReadBuffer<'a> {
    /// The `len` bytes of `sink` from `start` on.
    pub fn new(sink: &'a mut dyn ReplySink, start: usize, len: usize) -> Self {
        let len = len.min(sink.capacity().saturating_sub(start));
        Self {
            sink,
            start,
            len,
            filled: 0,
        }
    }

    /// How many bytes still fit.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.len - self.filled
    }

    /// How many bytes have been put in.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Puts in up to `len` bytes of `file` from `offset` on and returns how many: fewer than fit only at the
    /// end of the file.
    ///
    /// # Errors
    /// That of reading; EIO where the system gave no number.
    pub fn fill_from_file(&mut self, file: &File, offset: u64, len: usize) -> Result<usize, Errno> {
        let len = len.min(self.remaining());
        let mut done = 0;
        while done < len {
            let place = self.start + self.filled;
            let more = self
                .sink
                .fill_from_file(place, len - done, file, offset + done as u64)
                .map_err(|error| errno_of(&error))?
                .min(len - done);
            if more == 0 {
                break;
            }
            done += more;
            self.filled += more;
        }
        Ok(done)
    }

    /// Puts in up to `len` zeros.
    ///
    /// # Errors
    /// EIO when the reply cannot be written.
    pub fn fill_zeros(&mut self, len: usize) -> Result<(), Errno> {
        let mut left = len.min(self.remaining());
        while left > 0 {
            let part = left.min(ZEROS.len());
            self.sink
                .write_at(self.start + self.filled, &ZEROS[..part])
                .map_err(|error| errno_of(&error))?;
            self.filled += part;
            left -= part;
        }
        Ok(())
    }
}

/// The part of a request that holds bytes to write, taken from its start.
pub struct WriteSource<'a> {
    request: &'a dyn RequestSource,
    offset: usize,
    remaining: usize,
}

impl<'a> WriteSource<'a> {
    /// The `len` bytes of `request` from `offset` on.
    pub fn new(request: &'a dyn RequestSource, offset: usize, len: usize) -> Self {
        Self {
            request,
            offset,
            remaining: len.min(request.len().saturating_sub(offset)),
        }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Writes the next `len` bytes (or all that are left) to `file` at `file_offset`; returns how many.
    ///
    /// # Errors
    /// That of writing, when not a single byte was written.
    pub fn write_to_file(&mut self, len: usize, file: &File, file_offset: u64) -> Result<usize, Errno> {
        let len = len.min(self.remaining);
        let mut done = 0;
        while done < len {
            let at = file_offset + done as u64;
            match self.request.write_to_file(self.offset, len - done, file, at) {
                Ok(0) => break,
                Ok(more) => {
                    let more = more.min(len - done);
                    done += more;
                    self.offset += more;
                    self.remaining -= more;
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno_of(&error)),
            }
        }
        Ok(done)
    }
}

/// The errno in an I/O error, or EIO where there is none.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
