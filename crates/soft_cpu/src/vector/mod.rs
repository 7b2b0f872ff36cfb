//! SSE to SSE4.2, AVX, AVX2, FMA, F16C, AES, PCLMULQDQ.
//!
//! Every instruction has one function for its legacy and VEX encodings and both widths: [`drivers`] fetch operands
//! as the encoding demands, and apply pure functions to them ([`lanes`] for integers, [`float`] for numbers).
//! Instructions that touch MMX registers are the x87's.

mod control;
mod conversions;
mod crypto;
mod drivers;
mod elements;
mod float;
mod float_drivers;
mod fma;
mod integer;
mod lanes;
mod masked;
mod moves;
mod numbers;
mod operands;
mod shuffle;
mod text;

use iced_x86::{EncodingKind, Instruction, OpKind};

use crate::exec::Handler;

/// Bits of MXCSR that exist (Intel SDM vol. 1, 10.2.3).
pub(crate) const MXCSR_MASK: u32 = 0xffff;

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
pub(crate) fn handler(instruction: &Instruction) -> Option<Handler> {
    const GROUPS: [fn(&Instruction) -> Option<Handler>; 11] = [
        moves::handler,
        numbers::handler,
        integer::handler,
        shuffle::handler,
        elements::handler,
        masked::handler,
        conversions::handler,
        fma::handler,
        text::handler,
        crypto::handler,
        control::handler,
    ];
    let known = matches!(instruction.encoding(), EncodingKind::Legacy | EncodingKind::VEX);
    if !known || touches_mmx(instruction) {
        return None;
    }
    GROUPS.iter().find_map(|group| group(instruction))
}

/// Whether an operand is an MMX register.
fn touches_mmx(instruction: &Instruction) -> bool {
    (0..instruction.op_count())
        .any(|index| instruction.op_kind(index) == OpKind::Register && instruction.op_register(index).is_mm())
}

#[cfg(test)]
mod tests;
