//! Random bytes.

use crate::{Error, sys};

/// Fills `buffer` from the system's cryptographic generator.
///
/// # Errors
/// The system refuses; `buffer` is then unspecified.
pub fn random_bytes(buffer: &mut [u8]) -> Result<(), Error> {
    sys::random_bytes(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_of_a_long_buffer_differ() {
        let (mut one, mut other) = ([0; 1024], [0; 1024]);

        random_bytes(&mut one).unwrap();
        random_bytes(&mut other).unwrap();

        assert_ne!(one, other);
    }
}
