//! The bytes of all RAM before a program runs.

use super::place::RAM;

pub(super) struct Ram(pub(super) Vec<Vec<u8>>);

impl Ram {
    pub(super) fn new() -> Self {
        Self(RAM.map(|(_, len)| vec![0; len as usize]).into())
    }

    /// What is no RAM is left out.
    pub(super) fn write(&mut self, gpa: u64, bytes: &[u8]) {
        for (&(start, len), stretch) in RAM.iter().zip(&mut self.0) {
            let end = gpa + bytes.len() as u64;
            if gpa >= start && end <= start + len {
                stretch[(gpa - start) as usize..][..bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    pub(super) fn write_words(&mut self, gpa: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(gpa, &bytes);
    }
}
