//! Where random bytes come from.

use std::io;

/// A source of cryptographically secure random bytes.
///
/// Called from device threads, several at once; must not block for long.
pub trait Entropy: Send + Sync {
    /// Fills the whole of `bytes`, or reports why it cannot.
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()>;
}
