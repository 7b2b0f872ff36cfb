//! What only an operating system does: segments, descriptor tables, control registers, MSRs, CPUID, ports,
//! interrupts and the ways in and out of privilege.

use iced_x86::Instruction;

use crate::exec::Handler;

/// Model-specific registers that no other part holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct SystemMsrs;

/// The handler of an instruction of this group.
pub(crate) fn handler(_instruction: &Instruction) -> Option<Handler> {
    None
}

/// Whether an instruction that is neither a control transfer nor privileged ends a block all the same.
pub(crate) fn ends_block(_instruction: &Instruction) -> bool {
    false
}
