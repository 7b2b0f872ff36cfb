//! Which boot of the host this is.

use crate::{Error, sys};

/// A string that is the same as long as the host runs and another after its next boot: what is measured about
/// the machine is remembered under it.
///
/// # Errors
/// The system does not tell.
pub fn boot_id() -> Result<String, Error> {
    sys::boot_id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_id_is_the_same_twice() {
        let first = boot_id().unwrap();

        assert!(!first.is_empty());
        assert_eq!(boot_id().unwrap(), first);
    }
}
