//! x87, MMX, and the instructions that save and restore extended state.

use iced_x86::Instruction;

use crate::exec::Handler;

/// The x87 registers as `FXSAVE` lays them out (Intel SDM vol. 1, 10.5.1), so that a host can load them.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub(crate) struct X87 {
    pub(crate) control: u16,
    pub(crate) status: u16,
    /// Abridged: a set bit says that the physical register holds something.
    pub(crate) tags: u8,
    reserved: u8,
    pub(crate) opcode: u16,
    pub(crate) instruction_pointer: u64,
    pub(crate) data_pointer: u64,
    mxcsr: [u32; 2],
    /// ST(0) to ST(7), 80 bits each in 16 bytes; MMX registers are their low 64 bits.
    pub(crate) registers: [u128; 8],
}

impl Default for X87 {
    /// As after reset by `FNINIT` (Intel SDM vol. 1, 8.1).
    fn default() -> Self {
        Self {
            control: 0x37f,
            status: 0,
            tags: 0,
            reserved: 0,
            opcode: 0,
            instruction_pointer: 0,
            data_pointer: 0,
            mxcsr: [0; 2],
            registers: [0; 8],
        }
    }
}

/// The handler of an instruction of this group.
pub(crate) fn handler(_instruction: &Instruction) -> Option<Handler> {
    None
}
