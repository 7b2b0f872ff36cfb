//! What only an operating system does: segments, descriptor tables, control registers, MSRs, CPUID, ports,
//! interrupts and the ways in and out of privilege.
//!
//! Left out: hardware task switches, virtual-8086 mode and system-management mode. What would begin them raises an
//! exception.

mod control;
mod cpuid;
mod cpuid_leaves;
mod debug;
mod delivery;
mod descriptors;
mod far;
mod interrupts;
mod msr;
mod ports;
mod pvclock;
mod segments;
mod stack;
mod state;
mod syscall;
mod tables;
#[cfg(test)]
mod tests;

use iced_x86::{Instruction, Mnemonic};

use crate::exec::{Handler, undefined};

pub(crate) use cpuid_leaves::offered_leaves;
pub(crate) use delivery::TripleFault;
pub(crate) use msr::SystemMsrs;
pub(crate) use state::{msrs, set_msrs, set_system_registers, system_registers};

/// The handler of an instruction of this group.
pub(crate) fn handler(instruction: &Instruction) -> Option<Handler> {
    const GROUPS: [fn(&Instruction) -> Option<Handler>; 11] = [
        segments::handler,
        far::handler,
        interrupts::handler,
        tables::handler,
        control::handler,
        debug::handler,
        msr::handler,
        cpuid::handler,
        syscall::handler,
        ports::handler,
        absent,
    ];
    GROUPS.iter().find_map(|group| group(instruction))
}

/// What exists only in system-management mode.
fn absent(instruction: &Instruction) -> Option<Handler> {
    (instruction.mnemonic() == Mnemonic::Rsm).then_some(undefined)
}

/// Whether an instruction that is neither a control transfer nor privileged ends a block all the same.
pub(crate) fn ends_block(instruction: &Instruction) -> bool {
    segments::loads_stack_segment(instruction)
}
