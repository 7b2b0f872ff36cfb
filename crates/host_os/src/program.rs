//! Which program this is.

use crate::{Error, sys};

/// Numbers that are the same for every process of one executable file or library, and others for every other file and for
/// every later content of the same: what one build of a program left for itself is remembered under them. The file is the
/// one that `address` was mapped from. They mean nothing on another host.
///
/// # Errors
/// The system does not tell.
pub fn program_identity(address: usize) -> Result<[u64; 7], Error> {
    sys::program_identity(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_identity_is_that_of_the_file_with_the_code() {
        let here = program_identity(program_identity as *const () as usize).unwrap();
        let library = program_identity(f64::sin as *const () as usize);

        assert_eq!(
            program_identity(program_identity_is_that_of_the_file_with_the_code as *const () as usize)
                .unwrap(),
            here
        );
        assert_ne!(library.ok(), Some([0; 7]));
    }

    #[test]
    fn program_identity_of_what_is_no_file_is_none() {
        let on_stack = 0;

        assert!(program_identity(&raw const on_stack as usize).is_err());
    }
}
