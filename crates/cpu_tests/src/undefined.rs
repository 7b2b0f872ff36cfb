//! What the architecture leaves open, and so is not compared.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, RflagsBits};

/// Status flags as RFLAGS has them.
const STATUS: [(u32, u64); 6] = [
    (RflagsBits::CF, 1),
    (RflagsBits::PF, 1 << 2),
    (RflagsBits::AF, 1 << 4),
    (RflagsBits::ZF, 1 << 6),
    (RflagsBits::SF, 1 << 7),
    (RflagsBits::OF, 1 << 11),
];

/// [`RflagsBits`] as bits of RFLAGS.
pub(crate) fn to_rflags(flags: u32) -> u64 {
    let set = STATUS.iter().filter(|(flag, _)| flags & flag != 0);
    set.fold(0, |bits, (_, bit)| bits | bit)
}

/// The flags that are undefined behind an instruction, by those that were before it.
pub(crate) fn after(instruction: &Instruction, before: u32) -> u32 {
    let written = instruction.rflags_written() | instruction.rflags_cleared() | instruction.rflags_set();
    let before = if may_leave_flags(instruction) {
        before
    } else {
        before & !written
    };
    // Rotations by another count than 1 leave OF undefined, also where the count is a multiple of the width.
    let count = instruction.immediate8() & 0x3f;
    let rotated = matches!(instruction.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr)
        && instruction.op1_kind() == OpKind::Immediate8
        && !matches!(count, 0 | 1);
    before | instruction.rflags_undefined() | if rotated { RflagsBits::OF } else { 0 }
}

/// Whether control goes on behind an instruction, or jumps forwards.
fn goes_on(instruction: &Instruction) -> bool {
    match instruction.flow_control() {
        FlowControl::Next => true,
        FlowControl::ConditionalBranch => instruction.near_branch_target() > instruction.ip(),
        _ => false,
    }
}

/// Shifts by zero, and string instructions that count from zero, leave all flags as they were.
fn may_leave_flags(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shl | M::Shr | M::Sal | M::Sar | M::Shld | M::Shrd
    ) || instruction.has_rep_prefix()
        || instruction.has_repne_prefix()
}

/// Undefined flags where a case ended: behind all instructions, or at the one that raised an exception.
pub(crate) fn at_end(instructions: &[Instruction], stopped_at: Option<u64>) -> u64 {
    if !instructions.iter().all(goes_on) {
        // Not in the order in which they stand: whatever any of them leaves undefined.
        let all = instructions.iter().fold(0, |flags, one| flags | after(one, 0));
        let stopped = instructions.iter().find(|one| stopped_at == Some(one.ip()));
        let partly = stopped.filter(|one| may_leave_flags(one));
        return to_rflags(all | partly.map_or(0, |one| one.rflags_modified()));
    }
    let mut undefined = 0;
    let mut skippable_until = 0;
    for instruction in instructions {
        if stopped_at == Some(instruction.ip()) {
            // Repeated string instructions have done a part.
            undefined |= if may_leave_flags(instruction) {
                instruction.rflags_modified()
            } else {
                0
            };
            break;
        }
        let before = undefined;
        undefined = after(instruction, undefined);
        if instruction.ip() < skippable_until {
            undefined |= before;
        }
        if instruction.flow_control() == FlowControl::ConditionalBranch {
            skippable_until = skippable_until.max(instruction.near_branch_target());
        }
    }
    to_rflags(undefined)
}
