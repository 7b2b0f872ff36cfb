//! What goes into a case and comes out of it: registers and memory, in one block of bytes.
//!
//! XSAVE area in the standard format, then the general registers as Linux has them in a signal's context, then the
//! contents of the two windows.

use crate::layout::{LAST_WINDOW_LEN, WINDOW_LEN};

pub(crate) const XSAVE_LEN: usize = 832;
pub(crate) const REGISTERS: usize = XSAVE_LEN;
pub(crate) const REGISTER_COUNT: usize = 24;
pub(crate) const WINDOWS: usize = REGISTERS + REGISTER_COUNT * 8;
pub(crate) const BLOCK_LEN: usize = WINDOWS + WINDOW_LEN + LAST_WINDOW_LEN;

/// Indices of `gregset_t`.
pub(crate) mod index {
    pub(crate) const RIP: usize = 16;
    pub(crate) const FLAGS: usize = 17;
    pub(crate) const ERROR: usize = 19;
    pub(crate) const VECTOR: usize = 20;
    pub(crate) const CR2: usize = 22;
    /// Of the general registers, in the order of instruction encodings.
    pub(crate) const GENERAL: [usize; 16] = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];
}

/// The vector that stands for no exception.
pub(crate) const NO_EXCEPTION: u64 = 255;

/// Offsets in the XSAVE area (Intel SDM vol. 1, 10.5.1 and 13.4).
pub(crate) mod xsave {
    pub(crate) const FCW: usize = 0;
    pub(crate) const FSW: usize = 2;
    pub(crate) const FTW: usize = 4;
    pub(crate) const MXCSR: usize = 24;
    pub(crate) const ST: usize = 32;
    pub(crate) const XMM: usize = 160;
    pub(crate) const XSTATE_BV: usize = 512;
    pub(crate) const YMM_HIGH: usize = 576;
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Block(pub(crate) [u8; BLOCK_LEN]);

impl Block {
    pub(crate) fn zeroed() -> Self {
        Self([0; BLOCK_LEN])
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut block = Self::zeroed();
        block.0.copy_from_slice(bytes);
        block
    }

    pub(crate) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        &self.0[at..at + len]
    }

    pub(crate) fn set_bytes(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|byte| self.0[at + byte]))
    }

    /// Of [`index`].
    pub(crate) fn register(&self, register: usize) -> u64 {
        self.word(REGISTERS + register * 8)
    }

    pub(crate) fn set_register(&mut self, register: usize, value: u64) {
        self.set_bytes(REGISTERS + register * 8, &value.to_le_bytes());
    }

    pub(crate) fn gpr(&self, number: usize) -> u64 {
        self.register(index::GENERAL[number])
    }

    pub(crate) fn set_gpr(&mut self, number: usize, value: u64) {
        self.set_register(index::GENERAL[number], value);
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        self.word(at) as u32
    }

    pub(crate) fn vector(&self) -> u64 {
        self.register(index::VECTOR)
    }

    /// Writes out what XSAVE left out because it is in its initial configuration (Intel SDM vol. 1, 13.6).
    pub(crate) fn complete(&mut self) {
        let present = self.0[xsave::XSTATE_BV];
        if present & 1 == 0 {
            self.0[..24].fill(0);
            self.set_bytes(xsave::FCW, &0x37f_u16.to_le_bytes());
            self.0[xsave::ST..xsave::XMM].fill(0);
        }
        if present & 2 == 0 {
            self.0[xsave::XMM..416].fill(0);
        }
        if present & 4 == 0 {
            self.0[xsave::YMM_HIGH..XSAVE_LEN].fill(0);
        }
    }
}
