//! Integer and general instructions.

mod arithmetic;
mod bit_fields;
mod bits;
mod conditions;
mod control;
mod decimal;
mod exchange;
mod flags;
mod hints;
mod moves;
mod multiply;
mod operands;
mod shifts;
mod stack;
mod strings;

use iced_x86::{Instruction, Mnemonic};

use crate::exec::Handler;

/// The handler of an instruction of this group.
pub(crate) fn handler(instruction: &Instruction) -> Option<Handler> {
    const GROUPS: [fn(&Instruction) -> Option<Handler>; 12] = [
        moves::handler,
        arithmetic::handler,
        control::handler,
        stack::handler,
        conditions::handler,
        shifts::handler,
        bits::handler,
        multiply::handler,
        strings::handler,
        exchange::handler,
        bit_fields::handler,
        hints::handler,
    ];
    GROUPS
        .iter()
        .find_map(|group| group(instruction))
        .or_else(|| decimal::handler(instruction))
}

/// Whether an instruction that goes on to the next one, and needs no privilege, ends a block all the same.
pub(crate) fn ends_block(instruction: &Instruction) -> bool {
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    // A repeated string instruction may have to come again; POPF may let interrupts in, turn on single steps, or
    // change what may be accessed.
    repeats && instruction.is_string_instruction()
        || matches!(
            instruction.mnemonic(),
            Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq | Mnemonic::Serialize
        )
}
