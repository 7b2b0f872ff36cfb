//! Where the guest's six status flags are while code is translated.
//!
//! Between blocks, and whenever an instruction can leave translated code, they are in memory as `SETO AL` and `LAHF`
//! give them. Inside a block they stay in the host's own flags as long as nothing else needs those.

use iced_x86::{Instruction, OpKind, RflagsBits};

use super::assembler::{Assembler, RAX, RSP};
use super::layout;
use super::registers::T1;

/// The flags this is about, as iced names them.
pub(super) const STATUS: u32 =
    RflagsBits::CF | RflagsBits::PF | RflagsBits::AF | RflagsBits::ZF | RflagsBits::SF | RflagsBits::OF;

/// Where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    /// In memory; the host's hold something else.
    Memory,
    /// In the host's; memory is out of date.
    Host,
    /// In both.
    Both,
}

/// Writes the host's flags to memory. Uses [`T1`].
pub(super) fn save(asm: &mut Assembler) {
    asm.mov(T1, RAX);
    // lahf; seto al
    asm.raw(&[0x9f, 0x0f, 0x90, 0xc0]);
    asm.store16(RSP, layout::STATUS, RAX);
    asm.mov(RAX, T1);
}

/// Loads the host's flags from memory. Uses [`T1`].
pub(super) fn load(asm: &mut Assembler) {
    asm.mov(T1, RAX);
    asm.load16(RAX, RSP, layout::STATUS);
    // add al, 0x7f: overflows where AL is 1; sahf
    asm.raw(&[0x04, 0x7f, 0x9e]);
    asm.mov(RAX, T1);
}

/// What an instruction does to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    /// It reads some.
    pub(super) reads: bool,
    /// It may leave some as they are.
    pub(super) keeps: bool,
    /// It changes some.
    pub(super) changes: bool,
}

impl Use {
    pub(super) fn of(instruction: &Instruction) -> Self {
        let modified = instruction.rflags_modified() & STATUS;
        Self {
            reads: instruction.rflags_read() & STATUS != 0,
            keeps: modified != STATUS || may_shift_by_nothing(instruction),
            changes: modified != 0,
        }
    }

    /// Whether the flags before `instruction` are lost with it.
    pub(super) fn overwrites(self) -> bool {
        self.changes && !self.keeps && !self.reads
    }
}

/// A count of zero leaves all flags alone, whatever the table says (Intel SDM vol. 2, SAL/SAR/SHL/SHR, "Flags Affected").
fn may_shift_by_nothing(instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic as M;
    let count = match instruction.mnemonic() {
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr => 1,
        M::Shld | M::Shrd => 2,
        _ => return false,
    };
    instruction.op_kind(count) != OpKind::Immediate8 || instruction.immediate8() & 31 == 0
}

/// The flags as RFLAGS has them, from the form in memory.
pub(super) fn to_rflags(status: u64) -> u64 {
    status >> 8 & 0xd5 | (status & 1) << 11
}

/// The form in memory of RFLAGS' status flags.
pub(super) fn from_rflags(rflags: u64) -> u64 {
    (rflags & 0xd5 | 2) << 8 | rflags >> 11 & 1
}
