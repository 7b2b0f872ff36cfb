//! The parts of a PCI function as records.

use saved_state::{Error, record, require};

use super::config_space::SIZE;

#[cfg(test)]
mod tests;

record! {
    /// A [`ConfigSpace`](super::ConfigSpace) as a guest left it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SavedConfigSpace {
        /// All of it, byte by byte.
        1 bytes: [u8; SIZE],
    }
}

impl SavedConfigSpace {
    /// That it differs from `initial` only in bits that are `writable`.
    pub(super) fn check(&self, initial: &[u8; SIZE], writable: &[u8; SIZE]) -> Result<(), Error> {
        let bits = self.bytes.iter().zip(initial).zip(writable);
        let mut changed = bits.map(|((byte, initial), writable)| (byte ^ initial) & !writable);
        require(changed.all(|bits| bits == 0), "configuration space")
    }
}

record! {
    /// An [`Msix`](super::Msix) as a guest left it. Message control is part of configuration space.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SavedMsix {
        /// The table.
        1 vectors: Vec<SavedVector>,
    }
}

record! {
    /// One vector of a [`SavedMsix`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SavedVector {
        /// Address low, address high, data, control.
        1 words: [u32; 4],
        /// A message waits for its unmasking.
        2 pending: bool,
    }
}
