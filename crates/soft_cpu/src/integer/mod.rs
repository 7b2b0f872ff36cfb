//! Integer and general instructions.

use iced_x86::Instruction;

use crate::exec::Handler;

/// The handler of an instruction of this group.
pub(crate) fn handler(_instruction: &Instruction) -> Option<Handler> {
    None
}
