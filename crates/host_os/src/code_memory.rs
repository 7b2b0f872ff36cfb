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
}
