//! Memory for machine code that is made while the program runs.

use std::ptr::NonNull;

use crate::{Error, sys};

/// A stretch of memory seen twice: at one address it can be written, at another executed. No page is ever both.
///
/// Bytes written at [`CodeMemory::writable`] + n are executed at [`CodeMemory::executable`] + n. Both mappings go
/// with this value.
#[derive(Debug)]
pub struct CodeMemory {
    inner: sys::CodeMemory,
}

impl CodeMemory {
    /// Maps `len` bytes, rounded up to whole pages, zeroed. They cost memory when first touched.
    ///
    /// # Errors
    /// The system refuses to execute memory that was written, or has no more of it.
    pub fn new(len: usize) -> Result<Self, Error> {
        Ok(Self {
            inner: sys::CodeMemory::new(len)?,
        })
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.inner.len
    }

    /// Where it can be read and written.
    pub fn writable(&self) -> NonNull<u8> {
        self.inner.writable
    }

    /// Writes `bytes` at `offset`, quicker than through [`CodeMemory::writable`] where there is much that was not touched
    /// before.
    ///
    /// # Errors
    /// The system has no more memory; some may have been written.
    ///
    /// # Panics
    /// Where they reach beyond the end.
    ///
    /// # Safety
    /// As for a store to all these bytes: nobody executes them, reads them or has a reference to them meanwhile.
    pub unsafe fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        assert!(
            offset
                .checked_add(bytes.len())
                .is_some_and(|end| end <= self.len())
        );
        self.inner.write_at(offset, bytes)
    }

    /// Where it can be read and executed.
    pub fn executable(&self) -> NonNull<u8> {
        self.inner.executable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_are_seen_at_the_executable_address() {
        let memory = CodeMemory::new(10_000).unwrap();
        assert!(memory.len() >= 10_000);
        // SAFETY: inside the mapping, which nobody else has.
        let seen = unsafe {
            memory.writable().add(9_999).write(0xc3);
            memory.executable().add(9_999).read_volatile()
        };
        assert_eq!(seen, 0xc3);
    }

    #[test]
    fn bytes_written_at_an_offset_are_seen_at_both_addresses() {
        let memory = CodeMemory::new(10_000).unwrap();
        let bytes: Vec<u8> = (0..250).cycle().take(6000).collect();

        // SAFETY: nobody else has this memory.
        unsafe { memory.write_at(3000, &bytes) }.unwrap();

        for address in [memory.executable(), memory.writable()] {
            // SAFETY: inside the mapping, which nobody writes to.
            let seen = unsafe { std::slice::from_raw_parts(address.as_ptr().add(3000), bytes.len()) };
            assert_eq!(seen, bytes);
        }
    }

    #[test]
    fn memory_of_some_size_begins_where_large_pages_can_be() {
        let memory = CodeMemory::new((5 << 20) + 1).unwrap();

        assert_eq!(memory.len(), (5 << 20) + 4096);
        for address in [memory.writable(), memory.executable()] {
            assert_eq!(address.as_ptr().align_offset(2 << 20), 0);
            // SAFETY: inside the mapping, which nobody writes to.
            assert_eq!(unsafe { address.as_ptr().add(5 << 20).read() }, 0);
        }
    }
}
