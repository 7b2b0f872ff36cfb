//! Permission bits of the host's files.

use std::fs::{File, Metadata};
use std::io;

use crate::sys;

/// The bits 0777 of a file's permissions: what its owner, its group and others may do. The bits that make a
/// program run as somebody else are never among them.
pub fn permission_bits(metadata: &Metadata) -> u32 {
    sys::permission_bits(metadata) & 0o777
}

/// Gives an open file the bits 0777 of `bits`.
///
/// # Errors
/// The system refuses.
pub fn set_permission_bits(file: &File, bits: u32) -> io::Result<()> {
    sys::set_permission_bits(file, bits & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_bits_set_are_read_back_without_those_that_change_identity() {
        let file = tempfile::tempfile().unwrap();

        set_permission_bits(&file, 0o6751).unwrap();

        assert_eq!(permission_bits(&file.metadata().unwrap()), 0o751);
    }
}
