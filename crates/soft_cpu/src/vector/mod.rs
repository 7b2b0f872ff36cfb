//! SSE and AVX.

use iced_x86::Instruction;

use crate::exec::Handler;

/// A vector register: YMM, whose low half is XMM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(32))]
pub(crate) struct Ymm(pub(crate) [u64; 4]);

/// XMM0 to XMM15 or YMM0 to YMM15, and MXCSR.
#[derive(Clone, Debug)]
#[repr(C, align(32))]
pub(crate) struct VectorState {
    pub(crate) registers: [Ymm; 16],
    pub(crate) mxcsr: u32,
}

impl Default for VectorState {
    /// As after reset: every exception masked.
    fn default() -> Self {
        Self {
            registers: Default::default(),
            mxcsr: 0x1f80,
        }
    }
}

/// The handler of an instruction of this group.
pub(crate) fn handler(_instruction: &Instruction) -> Option<Handler> {
    None
}
