//! File contents straight into and out of guest RAM, without a copy in between.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::bitmap::Bitmap;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::GuestMemory;

/// A stretch of guest-physical addresses, anywhere in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRange {
    /// First address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: usize,
}

/// The most buffers one call of the kernel takes (`IOV_MAX` of every Unix we run on).
const MAX_BUFFERS: usize = 1024;

impl GuestMemory {
    /// Fills `ranges`, in their order, from `file` at `offset`, as `preadv` does: fewer bytes at the end of
    /// the file.
    ///
    /// # Errors
    /// `InvalidInput` where a range is not wholly RAM, before any byte is touched; what the file says where
    /// it fails before the first byte.
    pub fn read_from_file(&self, ranges: &[GuestRange], file: &File, offset: u64) -> io::Result<usize> {
        let done = self.transfer(ranges, offset, |buffers, offset| {
            // SAFETY: every buffer is a part of the mapping that `self` keeps alive for the call, checked by
            // `buffers()`. The kernel writes there as a device would; all other access to guest RAM is
            // volatile, so no reference to these bytes exists that the store could invalidate.
            unsafe { libc::preadv(file.as_raw_fd(), buffers.as_ptr(), count(buffers), offset) }
        });
        // Some may have been written before an error, too.
        self.tell_written(ranges);
        done
    }

    fn tell_written(&self, ranges: &[GuestRange]) {
        for range in ranges {
            for slice in GuestMemoryBackend::get_slices(&**self, GuestAddress(range.gpa), range.len).flatten()
            {
                slice.bitmap().mark_dirty(0, slice.len());
            }
        }
    }

    /// Writes the bytes of `ranges`, in their order, to `file` at `offset`, as `pwritev` does.
    ///
    /// # Errors
    /// `InvalidInput` where a range is not wholly RAM, before any byte is written; what the file says where
    /// it fails before the first byte.
    pub fn write_to_file(&self, ranges: &[GuestRange], file: &File, offset: u64) -> io::Result<usize> {
        self.transfer(ranges, offset, |buffers, offset| {
            // SAFETY: every buffer is a part of the mapping that `self` keeps alive for the call, checked by
            // `buffers()`; the kernel only reads them, and copes with bytes that change meanwhile.
            unsafe { libc::pwritev(file.as_raw_fd(), buffers.as_ptr(), count(buffers), offset) }
        })
    }

    fn transfer(
        &self,
        ranges: &[GuestRange],
        mut offset: u64,
        call: impl Fn(&[libc::iovec], libc::off_t) -> isize,
    ) -> io::Result<usize> {
        let mut done = 0;
        for buffers in self.buffers(ranges)?.chunks(MAX_BUFFERS) {
            let wanted: usize = buffers.iter().map(|buffer| buffer.iov_len).sum();
            let moved = match retry(buffers, offset, &call) {
                Ok(moved) => moved,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            done += moved;
            offset += moved as u64;
            if moved < wanted {
                break;
            }
        }
        Ok(done)
    }

    /// The host's view of `ranges`; neighbours become one buffer.
    fn buffers(&self, ranges: &[GuestRange]) -> io::Result<Vec<libc::iovec>> {
        let mut buffers: Vec<libc::iovec> = Vec::with_capacity(ranges.len());
        for range in ranges {
            for slice in GuestMemoryBackend::get_slices(&**self, GuestAddress(range.gpa), range.len) {
                let slice = slice.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                let start = slice.ptr_guard_mut().as_ptr();
                match buffers.last_mut() {
                    Some(last) if last.iov_base as usize + last.iov_len == start as usize => {
                        last.iov_len += slice.len();
                    }
                    _ => buffers.push(libc::iovec {
                        iov_base: start.cast(),
                        iov_len: slice.len(),
                    }),
                }
            }
        }
        Ok(buffers)
    }
}

fn retry(
    buffers: &[libc::iovec],
    offset: u64,
    call: impl Fn(&[libc::iovec], libc::off_t) -> isize,
) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        if let Ok(moved) = usize::try_from(call(buffers, offset)) {
            return Ok(moved);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// At most [`MAX_BUFFERS`] by `chunks`.
fn count(buffers: &[libc::iovec]) -> libc::c_int {
    buffers.len() as libc::c_int
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::Bytes;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn range(gpa: u64, len: usize) -> GuestRange {
        GuestRange { gpa, len }
    }

    #[test]
    fn read_from_file_scattered_ranges_fills_in_order_and_stops_at_the_end() {
        let memory = GuestMemory::anonymous(&[(0, 0x3000)]).unwrap();
        let file = file(b"..0123456789");
        let ranges = [range(0x2000, 4), range(0x10, 4), range(0x1000, 100)];
        assert_eq!(memory.read_from_file(&ranges, &file, 2).unwrap(), 10);
        let mut bytes = [0; 4];
        memory.read_slice(&mut bytes, GuestAddress(0x10)).unwrap();
        assert_eq!(&bytes, b"4567");
        memory.read_slice(&mut bytes, GuestAddress(0x1000)).unwrap();
        assert_eq!(&bytes, b"89\0\0");
    }

    #[test]
    fn write_to_file_more_buffers_than_one_call_takes_writes_all() {
        let memory = GuestMemory::anonymous(&[(0, 0x3000)]).unwrap();
        let file = file(b"");
        let ranges: Vec<_> = (0..2500).map(|n| range(n * 4, 2)).collect();
        for n in 0..2500_u64 {
            memory.write_obj(n as u16, GuestAddress(n * 4)).unwrap();
        }
        assert_eq!(memory.write_to_file(&ranges, &file, 6).unwrap(), 5000);
        let copy = GuestMemory::anonymous(&[(0, 0x3000)]).unwrap();
        assert_eq!(copy.read_from_file(&[range(0, 6000)], &file, 6).unwrap(), 5000);
        assert_eq!(copy.read_obj::<u16>(GuestAddress(2499 * 2)).unwrap(), 2499);
    }

    #[test]
    fn range_outside_ram_is_refused_before_any_byte() {
        let memory = GuestMemory::anonymous(&[(0, 0x1000)]).unwrap();
        let file = file(b"0123456789");
        for bad in [range(0xfff, 2), range(u64::MAX, 2), range(0x5000, 1)] {
            let error = memory.read_from_file(&[range(0, 4), bad], &file, 0).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(memory.read_obj::<u32>(GuestAddress(0)).unwrap(), 0);
    }

    #[test]
    fn offset_past_what_a_file_can_have_is_refused() {
        let memory = GuestMemory::anonymous(&[(0, 0x1000)]).unwrap();
        assert!(
            memory
                .read_from_file(&[range(0, 4)], &file(b""), u64::MAX)
                .is_err()
        );
    }
}
